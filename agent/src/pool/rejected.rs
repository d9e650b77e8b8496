//! Rejects invalid settings: of a pool, which then does not start, or of a job, whose items then all fail.
//!
//! The coordinator checks its clients' settings, too. If it lets something pass, other pools must not suffer.

use farpool_link::record::MAX_PAYLOAD;
use farpool_proto::limits;
use farpool_proto::v1::{Failure, FailureKind, StartJob, StartPool};

use super::chunks::Piece;
use super::{Host, WorkerPool};

// A function must fit into a worker's ring beside other records.
const _: () = assert!(limits::FUNCTION_BYTES <= MAX_PAYLOAD / 2);
/// Most items that are reported as failed in one turn.
const MAX_ITEMS: u64 = 1024;

/// Checks the number and settings of a pool's workers.
pub(super) fn check_pool(start: &StartPool, host: &Host) -> Result<(), Failure> {
    let settings = start.settings.as_ref();
    let checked = limits::pool(start.processes, start.weight).and_then(|()| settings.map_or(Ok(()), limits::settings));
    checked.map_err(|beyond| failure(host, format!("pool rejected: {beyond}")))
}

/// Returns why the items of a job cannot run, if they cannot.
pub(super) fn check_job(job: &StartJob, host: &Host) -> Option<Failure> {
    let checked = limits::function("bytes of the job's function", job.function.len());
    checked.err().map(|beyond| failure(host, format!("job rejected: {beyond}")))
}

fn failure(host: &Host, message: String) -> Failure {
    Failure { kind: FailureKind::InvalidArgument.into(), message, host: host.name.clone(), ..Failure::default() }
}

impl WorkerPool {
    /// Reports items of rejected jobs as failed, up to a bound in each turn.
    pub(super) fn fail_rejected(&mut self) {
        let mut room = if self.held { 0 } else { MAX_ITEMS };
        while room > 0
            && let Some(mut piece) = self.rejected.pop_front()
        {
            let chunk = &self.chunks[piece.chunk as usize];
            let failure = self.jobs[chunk.job as usize].rejected.clone();
            let cancelled = chunk.cancelled;
            if cancelled {
                self.settle(piece.chunk, piece.count);
                continue;
            }
            let items = piece.count.min(room);
            for item in piece.first..piece.first + items {
                self.report_failed(piece.chunk, item, failure.clone().unwrap_or_default());
            }
            room -= items;
            piece = Piece { first: piece.first + items, count: piece.count - items, ..piece };
            if piece.count > 0 {
                self.rejected.push_front(piece);
            }
        }
    }

    /// Returns whether there are more of them.
    pub(super) fn has_rejected(&self) -> bool {
        !self.rejected.is_empty() && !self.held
    }
}
