//! Settings that cannot be: a pool that has some is refused, and of a job that has some every item fails. The coordinator
//! checks what its clients say, too; one that lets something through is no reason to give up the other pools.

use farpool_proto::v1::{Failure, FailureKind, StartJob, WorkerSettings};

use super::chunks::Piece;
use super::{Host, WorkerPool};
use crate::link::record::MAX_PAYLOAD;

/// Largest encoded result that a pool may allow: positions in a report are 32 bits.
const MOST_PAYLOAD: u64 = 2 << 30;
/// Bytes of a function's name and place, which have to fit into a worker's ring beside other things.
const MOST_FUNCTION: usize = MAX_PAYLOAD / 2;
/// Bytes of a pool's name.
const MOST_NAME: usize = 4096;
/// Items that are told to have failed in one turn.
const ITEMS: u64 = 1024;

/// Checks how a pool's workers are to be.
pub(super) fn check_pool(settings: &WorkerSettings, host: &Host) -> Result<(), Failure> {
    let WorkerSettings { payload_limit, name, .. } = settings;
    let why = if *payload_limit > MOST_PAYLOAD {
        format!("payload_limit is {payload_limit} bytes, and {MOST_PAYLOAD} (2 GiB) is the most")
    } else if name.len() > MOST_NAME {
        format!("its name has {} bytes, and {MOST_NAME} is the most", name.len())
    } else {
        return Ok(());
    };
    Err(failure(host, format!("a pool was refused: {why}")))
}

/// Why the items of a job cannot run, if they cannot.
pub(super) fn check_job(job: &StartJob, host: &Host) -> Option<Failure> {
    let bytes = job.function.len();
    (bytes > MOST_FUNCTION).then(|| {
        failure(
            host,
            format!("a job was refused: what names its function has {bytes} bytes, and {MOST_FUNCTION} is the most"),
        )
    })
}

fn failure(host: &Host, message: String) -> Failure {
    Failure { kind: FailureKind::InvalidArgument.into(), message, host: host.name.clone(), ..Failure::default() }
}

impl WorkerPool {
    /// Tells of items of refused jobs that they have failed, up to a bound in each turn.
    pub(super) fn fail_refused(&mut self) {
        let mut room = if self.held { 0 } else { ITEMS };
        while room > 0
            && let Some(mut piece) = self.refused.pop_front()
        {
            let chunk = &self.chunks[piece.chunk as usize];
            let failure = self.jobs[chunk.job as usize].refused.clone();
            let cancelled = chunk.cancelled;
            if cancelled {
                self.settle(piece.chunk, piece.count);
                continue;
            }
            let items = piece.count.min(room);
            for item in piece.first..piece.first + items {
                self.tell_failed(piece.chunk, item, failure.clone().unwrap_or_default());
            }
            room -= items;
            piece = Piece { first: piece.first + items, count: piece.count - items, ..piece };
            if piece.count > 0 {
                self.refused.push_front(piece);
            }
        }
    }

    /// Whether there is more of that to do.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty() && !self.held
    }
}
