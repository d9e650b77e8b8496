//! Checks of requests about detached jobs, and their refusals.

use bytes::Bytes;
use farpool_coordinator::Principal;
use farpool_coordinator::convert::check_job_message;
use farpool_programs::Digest;
use farpool_proto::text;
use farpool_proto::v1::{ClientMessage, Detach, OpenJob, OpenPool, Program, client_message};
use farpool_store::{Job, JobStoreError, JobStoreErrorKind, Known};
use tonic::Status;

/// The most characters of a label that are kept for lists.
const MAX_LABEL: usize = 256;

/// The longest name of a result type, in bytes.
const MAX_RESULT: usize = 4096;

/// Checks and returns the description of a new job.
pub(super) fn known(owner: Principal, id: Bytes, detach: Detach, job: &OpenJob) -> Result<Known, Status> {
    let Detach { name, result, format, .. } = detach;
    if !text::is_plain(&name) {
        return Err(Status::invalid_argument("a job's name must not contain control characters"));
    }
    if result.len() > MAX_RESULT {
        let length = result.len();
        return Err(Status::invalid_argument(format!(
            "the result type has {length} bytes, and the limit is {MAX_RESULT}"
        )));
    }
    let label = job.label.chars().take(MAX_LABEL).collect();
    Ok(Known { owner, name, id, result, format, label, wire_number: job.job })
}

/// Returns the digest of the pool's program; `None` if it is missing or malformed.
pub(super) fn digest_of(pool: &OpenPool) -> Option<Digest> {
    let program = Program::unpacked(&pool.program).ok()??;
    Digest::try_from(&program.digest[..]).ok()
}

/// Returns the limit of an item's size in a pool, in bytes.
pub(super) fn payload_limit_of(pool: &OpenPool) -> u64 {
    pool.settings.as_ref().map_or(0, |settings| settings.payload_limit)
}

/// Checks that a job's pool can be opened later.
pub(super) fn check_opening(pool: &OpenPool, job: &OpenJob) -> Result<(), Status> {
    for body in [client_message::Body::OpenPool(pool.clone().into()), client_message::Body::OpenJob(job.clone().into())]
    {
        check_job_message(ClientMessage { body: Some(body) })
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
    }
    Ok(())
}

/// Checks that a job is the one with this id, and not a later one of the same name.
pub(super) fn check_id(job: &Job, id: &[u8]) -> Result<(), Status> {
    if id.is_empty() || job.known.id == id {
        return Ok(());
    }
    Err(Status::not_found(format!("the job was discarded, and another one is called {:?} now", job.name())))
}

pub(super) fn not_found(name: &str) -> Status {
    Status::not_found(format!("there is no detached job {name:?}"))
}

/// Refuses a client whose job was dropped after a part of it had been reported as durable.
pub(super) fn dropped() -> Status {
    Status::data_loss(
        "the coordinator has dropped the incomplete job: its client was away for too long, or the job was discarded; detach it again",
    )
}

pub(super) fn no_store() -> Status {
    Status::failed_precondition("this coordinator keeps no journal: start it with --journal DIR")
}

pub(super) fn status(error: &JobStoreError) -> Status {
    let message = error.to_string();
    match error.kind() {
        JobStoreErrorKind::Full => Status::resource_exhausted(message),
        JobStoreErrorKind::Busy | JobStoreErrorKind::Io => Status::unavailable(message),
        JobStoreErrorKind::NameTaken => Status::already_exists(message),
        JobStoreErrorKind::NotFound => Status::not_found(message),
        JobStoreErrorKind::Invalid => Status::invalid_argument(message),
        _ => Status::internal(message),
    }
}
