//! How the daemon, its session and its connection end.

use farpool_net::dial::reason;
use tonic::{Code, Status};

/// How the daemon ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// It has left after draining.
    Left,
    /// It stopped at once, after a second signal; it exits with this code.
    Killed(u8),
    /// The coordinator rejected it.
    Refused(String),
}

/// Why a connection failed or was lost.
#[derive(Debug)]
pub(super) enum Failure {
    /// A retry may succeed.
    Lost(String),
    /// The coordinator does not resume the session, for this reason.
    NotResumed(String),
    /// The coordinator sent malformed data, so earlier commands of the session may be wrong too.
    Malformed(String),
    /// A retry would fail in the same way.
    Refused(String),
}

impl Failure {
    /// Returns the failure for a status with which the coordinator ended a connection.
    pub(super) fn of(status: &Status) -> Failure {
        let text = reason(status);
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument => Failure::Refused(text),
            _ => Failure::Lost(text),
        }
    }

    /// Returns the failure for a status of an attempt to resume a session.
    pub(super) fn of_resume(status: &Status) -> Failure {
        match (status.code(), Failure::of(status)) {
            // Invalid: the two sides disagree about the messages. They may agree about what is held.
            (Code::NotFound | Code::InvalidArgument, _) => Failure::NotResumed(reason(status)),
            (_, failure) => failure,
        }
    }
}
