//! Rejects invalid settings: of a pool, which then does not start, or of a job, whose items then all fail.
//!
//! The coordinator checks its clients' settings, too. If it lets something pass, other pools must not suffer.

use farpool_proto::limits;
use farpool_proto::v1::{Failure, FailureKind, StartJob, StartPool};
use nix::errno::Errno;

use super::function::why_not_shared;
use crate::Host;

/// Checks the number and settings of a pool's workers.
pub(super) fn check_pool(start: &StartPool, host: &Host) -> Result<(), Failure> {
    let settings = start.settings.as_ref();
    let checked = limits::pool(start.processes, start.weight).and_then(|()| settings.map_or(Ok(()), limits::settings));
    checked.map_err(|beyond| failure(host, format!("pool rejected: {beyond}")))
}

/// Returns why the items of a job cannot run, if they cannot.
pub(super) fn check_job(job: &StartJob, host: &Host) -> Option<Failure> {
    let checked = if job.shared {
        limits::shared(job.function.len())
    } else {
        limits::function("bytes of the job's function", job.function.len())
    };
    checked.err().map(|beyond| failure(host, format!("job rejected: {beyond}")))
}

/// Returns the failure of items whose function could not be shared with the workers.
pub(super) fn not_shared(error: Errno, host: &Host) -> Failure {
    let message = why_not_shared(error);
    Failure { kind: FailureKind::Unavailable.into(), message, host: host.name.clone(), ..Failure::default() }
}

fn failure(host: &Host, message: String) -> Failure {
    Failure { kind: FailureKind::InvalidArgument.into(), message, host: host.name.clone(), ..Failure::default() }
}
