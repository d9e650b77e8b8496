//! Checks messages from peers. This is the only place where message types become the coordinator's own.
//!
//! These checks need only the message itself. The code for a session checks whether the message fits that session.

mod agent;
mod client;
mod held;

use bytes::Bytes;
use farpool_proto::limits;
use farpool_proto::v1::Label;

use crate::ids::Identity;
use crate::refused::{Refused, RefusedKind};
pub(crate) use agent::{FromAgent, Hello, from_agent};
pub use client::Ticket;
pub(crate) use client::{FromClient, JobRequest, PoolRequest, from_client};
pub use client::{OfOneJob, check_job_message};
pub(crate) use held::{HeldChunk, HeldPool, is_held};

/// Consecutive payloads (items or results), at least one. The ends are checked: they never fall, and the last one is
/// the length of `data`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The index of the first item.
    pub first: u64,
    /// The number of items.
    pub count: u64,
    /// The payloads, one after another.
    pub data: Bytes,
    /// The end of each payload, a little-endian u32 each.
    pub ends: Bytes,
    /// Whether they are results of items that count as failed.
    pub failed: bool,
}

impl Batch {
    /// Returns the bytes that it takes, as counted for a window.
    pub fn bytes(&self) -> u64 {
        (self.data.len() + self.ends.len()) as u64
    }

    /// Returns the part of it that has these items.
    pub fn part(&self, first: u64, count: u64) -> Self {
        let from = first - self.first;
        let start = if from == 0 { 0 } else { end_at(&self.ends, from - 1) };
        let end = end_at(&self.ends, from + count - 1);
        let ends = (from..from + count).flat_map(|at| (end_at(&self.ends, at) - start).to_le_bytes()).collect();
        Self { first, count, data: self.data.slice(start as usize..end as usize), ends, failed: self.failed }
    }

    /// Returns the first payload above the limit: its index and its length.
    #[inline]
    pub fn longer_than(&self, limit: u64) -> Option<(u64, u64)> {
        if self.data.len() as u64 <= limit {
            return None;
        }
        let ends = (0..self.count).map(|at| u64::from(end_at(&self.ends, at)));
        let lengths = ends.scan(0, |start, end| Some(end - std::mem::replace(start, end)));
        (self.first..).zip(lengths).find(|&(_, length)| length > limit)
    }
}

fn labels(labels: Vec<Label>) -> Result<Vec<Label>, Refused> {
    limits::labels(&labels)?;
    match labels.iter().any(|label| label.key.is_empty() || label.value.is_empty()) {
        true => Err(RefusedKind::LabelEmpty.into()),
        false => Ok(labels),
    }
}

/// Checks the id of a pool or an agent; none in local mode. `refused` makes the error for an id of a wrong length.
fn identity(id: &[u8], refused: fn(usize) -> RefusedKind) -> Result<Option<Identity>, Refused> {
    match id {
        [] => Ok(None),
        id => Ok(Some(id.try_into().map_err(|_| refused(id.len()))?)),
    }
}

fn batch(first: u64, data: Bytes, ends: Bytes) -> Result<Batch, Refused> {
    if !ends.len().is_multiple_of(4) {
        return Err(RefusedKind::EndsCut(ends.len()).into());
    }
    if ends.is_empty() {
        return Err(RefusedKind::NoItems.into());
    }
    let count = (ends.len() / 4) as u64;
    first.checked_add(count).ok_or(RefusedKind::IndexTooHigh(first))?;
    let mut last = 0;
    for at in 0..count {
        let end = end_at(&ends, at);
        if end < last {
            return Err(RefusedKind::EndsFall(at).into());
        }
        last = end;
    }
    if last as usize != data.len() {
        return Err(RefusedKind::EndsMissData { last: last.into(), len: data.len() as u64 }.into());
    }
    Ok(Batch { first, count, data, ends, failed: false })
}

/// Returns where the payload at position `at` ends.
#[inline]
pub(crate) fn end_at(ends: &[u8], at: u64) -> u32 {
    let at = at as usize * 4;
    u32::from_le_bytes(ends[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(ends: &[u32]) -> Bytes {
        ends.iter().flat_map(|end| end.to_le_bytes()).collect()
    }

    #[test]
    fn batches() {
        let check = |first, data: &'static [u8], ends: Bytes, expected: Result<u64, RefusedKind>| {
            let found = batch(first, Bytes::from_static(data), ends).map(|batch| batch.count);
            assert_eq!(found.map_err(|refused| refused.kind().clone()), expected);
        };
        check(0, b"abc", bytes_of(&[1, 3]), Ok(2));
        check(7, b"", bytes_of(&[0]), Ok(1));
        check(7, b"ab", bytes_of(&[0, 0, 2, 2]), Ok(4));
        check(u64::MAX - 1, b"a", bytes_of(&[1]), Ok(1));
        check(0, b"", Bytes::new(), Err(RefusedKind::NoItems));
        check(0, b"abc", Bytes::from_static(b"abc"), Err(RefusedKind::EndsCut(3)));
        check(0, b"abc", Bytes::from_static(b"abcde"), Err(RefusedKind::EndsCut(5)));
        check(0, b"abc", bytes_of(&[2, 1, 3]), Err(RefusedKind::EndsFall(1)));
        check(0, b"abc", bytes_of(&[1, 2]), Err(RefusedKind::EndsMissData { last: 2, len: 3 }));
        check(0, b"abc", bytes_of(&[u32::MAX]), Err(RefusedKind::EndsMissData { last: u32::MAX.into(), len: 3 }));
        check(u64::MAX, b"a", bytes_of(&[1]), Err(RefusedKind::IndexTooHigh(u64::MAX)));
        check(u64::MAX - 1, b"a", bytes_of(&[1, 1]), Err(RefusedKind::IndexTooHigh(u64::MAX - 1)));
    }
}
