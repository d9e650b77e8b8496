//! How things end.

use farpool_common::causes::with_causes;
use tonic::{Code, Status};

/// How the daemon ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// As it should: it was told to leave.
    Left,
    /// It was told to leave at once, and exits with this.
    Killed(u8),
    /// There will be no session.
    Refused(String),
}

/// Why there is no connection, or none any more.
#[derive(Debug)]
pub(super) enum Failure {
    /// There may be another one.
    Lost(String),
    /// The coordinator does not know the session, or has given it up.
    GivenUp,
    /// What the coordinator says makes no sense: nothing that was begun in the session can be trusted to be wanted.
    Nonsense(String),
    /// Another try would end in the same way.
    Refused(String),
}

impl Failure {
    /// What it means that the coordinator ends a connection with this status.
    pub(super) fn of(status: &Status) -> Failure {
        let text = match status.message() {
            "" => status.code().to_string(),
            message => with_causes(message.to_owned(), status),
        };
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument => Failure::Refused(text),
            _ => Failure::Lost(text),
        }
    }

    /// The same while a session was to be resumed.
    pub(super) fn to_resume(status: &Status) -> Failure {
        match (status.code(), Failure::of(status)) {
            (Code::NotFound, _) => Failure::GivenUp,
            // The two do not agree on what was said. They may on what is held.
            (Code::InvalidArgument, _) => Failure::GivenUp,
            (_, failure) => failure,
        }
    }
}
