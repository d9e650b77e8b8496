//! Settings that cannot be: a pool that has some is refused, and of a job that has some every item fails. The coordinator
//! checks what its clients say, too; one that lets something through is no reason to give up the other pools.

use farpool_link::record::MAX_PAYLOAD;
use farpool_proto::limits;
use farpool_proto::v1::{Failure, FailureKind, StartJob, StartPool};

use super::chunks::Piece;
use super::{Host, WorkerPool};

// A function has to fit into a worker's ring beside other things.
const _: () = assert!(limits::FUNCTION_BYTES <= MAX_PAYLOAD / 2);
/// Items that are told to have failed in one turn.
const ITEMS: u64 = 1024;

/// Checks how many workers a pool wants, and how they are to be.
pub(super) fn check_pool(start: &StartPool, host: &Host) -> Result<(), Failure> {
    let settings = start.settings.as_ref();
    let checked = limits::pool(start.processes, start.weight).and_then(|()| settings.map_or(Ok(()), limits::settings));
    checked.map_err(|beyond| failure(host, format!("a pool was refused: {beyond}")))
}

/// Why the items of a job cannot run, if they cannot.
pub(super) fn check_job(job: &StartJob, host: &Host) -> Option<Failure> {
    let checked = limits::function("bytes of the job's function", job.function.len());
    checked.err().map(|beyond| failure(host, format!("a job was refused: {beyond}")))
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
