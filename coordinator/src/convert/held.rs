//! The pools and chunks that reconnecting agents hold.

use farpool_core::{PoolId, Run};
use farpool_proto::v1::{self, HeldChunk as Chunk};

use super::identity;
use crate::Principal;
use crate::ids::PoolKey;
use crate::refused::{Refused, RefusedKind};

/// A pool that an agent still runs for a session that has ended.
#[derive(Debug)]
pub(crate) struct HeldPool {
    /// The agent's number for it.
    pub(crate) number: u64,
    pub(crate) key: PoolKey,
    /// The most workers it has at once; 0: as many as there are slots.
    pub(crate) workers: u32,
    pub(crate) chunks: Vec<HeldChunk>,
    /// The client's numbers of the shared values that the agent has.
    pub(crate) shared: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct HeldChunk {
    /// The agent's number for it.
    pub(crate) number: u64,
    /// The client's number for its job.
    pub(crate) job: u64,
    pub(crate) first: u64,
    pub(crate) attempt: u32,
    /// Sorted, and not overlapping.
    pub(crate) runs: Vec<Run>,
}

/// The bit that is set in agents' own numbers and never in coordinators'.
const HELD: u64 = 1 << 63;

/// Whether it is an agent's own number for a pool.
pub(crate) fn is_held(pool: PoolId) -> bool {
    pool.to_bits() & HELD != 0
}

pub(super) fn held_pool(held: v1::HeldPool) -> Result<HeldPool, Refused> {
    let v1::HeldPool { pool: number, id, processes: workers, chunks, owner, shared } = held;
    if number & HELD == 0 {
        return Err(RefusedKind::HeldNumber(number).into());
    }
    let id = identity(&id, RefusedKind::PoolIdLength)?.ok_or(RefusedKind::Missing("id"))?;
    let key = PoolKey { owner: Principal::named(owner.as_ref()), id };
    let chunks = chunks.into_iter().map(held_chunk).collect::<Result<_, _>>()?;
    Ok(HeldPool { number, key, workers, chunks, shared })
}

fn held_chunk(held: Chunk) -> Result<HeldChunk, Refused> {
    let Chunk { chunk: number, job, attempt, first, runs } = held;
    let refused = || Refused::from(RefusedKind::HeldRuns(number));
    if runs.is_empty() || !runs.len().is_multiple_of(2) {
        return Err(refused());
    }
    let mut next = 0;
    let runs = runs.chunks_exact(2).map(|run| {
        let (first, count) = (run[0], run[1]);
        let end = first.checked_add(count).filter(|_| first >= next && count > 0).ok_or_else(refused)?;
        next = end;
        Ok(Run::new(first, count))
    });
    let runs = runs.collect::<Result<_, Refused>>()?;
    Ok(HeldChunk { number, job, first, attempt: attempt.max(1), runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_chunks_are_checked() {
        let check = |runs: &[u64], expected: Option<&[(u64, u64)]>| {
            let found = held_chunk(Chunk { chunk: 7, runs: runs.to_vec(), ..Chunk::default() });
            let expected = expected.map(|runs| runs.iter().map(|&(first, count)| Run::new(first, count)).collect());
            let found = found.map(|chunk| chunk.runs);
            assert_eq!(found.map_err(|refused| refused.kind().clone()), expected.ok_or(RefusedKind::HeldRuns(7)));
        };
        check(&[3, 1], Some(&[(3, 1)]));
        check(&[3, 2, 5, 1, 9, 4], Some(&[(3, 2), (5, 1), (9, 4)]));
        check(&[u64::MAX - 1, 1], Some(&[(u64::MAX - 1, 1)]));
        check(&[], None);
        check(&[3], None);
        check(&[3, 0], None);
        check(&[3, 2, 4, 1], None);
        check(&[3, 1, 2, 1], None);
        check(&[u64::MAX, 1], None);
    }

    #[test]
    fn held_pools_are_checked() {
        let check = |pool, id: &[u8], expected: Option<RefusedKind>| {
            let found = held_pool(v1::HeldPool { pool, id: id.to_vec().into(), ..v1::HeldPool::default() });
            assert_eq!(found.err().map(|refused| refused.kind().clone()), expected);
        };
        check(HELD | 5, &[1; 16], None);
        check(5, &[1; 16], Some(RefusedKind::HeldNumber(5)));
        check(HELD, &[], Some(RefusedKind::Missing("id")));
        check(HELD, &[1; 15], Some(RefusedKind::PoolIdLength(15)));
    }
}
