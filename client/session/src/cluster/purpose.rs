//! The purpose of a session, which decides how its errors are worded.

use std::io;
use std::time::Duration;

use farpool_net::dial::reason;
use tonic::{Code, Status};

use super::Address;
use super::connect;
use super::kept::Violation;
use super::subject::Subject;
use super::upload::unreadable;
use crate::error::{Error, ErrorKind};

/// The purpose of a session.
#[derive(Clone)]
pub(super) enum Purpose {
    /// A pool, at the coordinator with this address.
    Pool(Address),
    /// One detached job: it is sent to the coordinator, or read.
    Job(Subject),
}

/// A job's connection that lasted this long counts as progress.
const STABLE_AFTER: Duration = Duration::from_secs(2);

impl Purpose {
    pub(super) fn address(&self) -> &Address {
        match self {
            Self::Pool(address) => address,
            Self::Job(subject) => &subject.location().address,
        }
    }

    /// Returns whether it is one detached job.
    pub(super) fn is_job(&self) -> bool {
        matches!(self, Self::Job(_))
    }

    /// Returns how long a connection must last to count as progress.
    pub(super) fn stable_after(&self) -> Duration {
        if self.is_job() { STABLE_AFTER } else { Duration::ZERO }
    }

    /// Returns whether this answer makes another attempt to reconnect pointless.
    pub(super) fn is_final(&self, status: &Status) -> bool {
        match self {
            // Other clients may have left by the next attempt.
            Self::Pool(_) => status.code() != Code::ResourceExhausted && connect::is_final(status),
            Self::Job(_) => connect::is_final(status),
        }
    }

    /// Returns the text for a stream that the coordinator ended early.
    pub(super) fn ended_early(&self) -> &'static str {
        match self {
            Self::Pool(_) => "the coordinator ended the session",
            Self::Job(subject) => subject.ended_early(),
        }
    }

    /// The error if the coordinator refused the session.
    pub(super) fn refused(&self, status: &Status) -> Error {
        match self {
            Self::Pool(address) => connect::not_opened(address, status),
            Self::Job(subject) => subject.refused(status),
        }
    }

    /// The error if the coordinator ended an accepted session with a final status.
    pub(super) fn ended(&self, open_jobs: usize, status: &Status) -> Error {
        match self {
            Self::Pool(address) => connect::lost(address, open_jobs, &reason(status)),
            Self::Job(subject) => subject.refused(status),
        }
    }

    /// The error if the coordinator sent an invalid frame.
    pub(super) fn garbled(&self, open_jobs: usize, status: &Status) -> Error {
        match self {
            Self::Pool(address) => connect::lost(address, open_jobs, &reason(status)),
            Self::Job(_) => self.protocol_error(&format!("sent an invalid frame: {}", status.message())),
        }
    }

    /// The error if the session could not reconnect within this time. `what` is how the connection was lost, and `last`
    /// how the last attempt failed.
    pub(super) fn given_up(&self, open_jobs: usize, what: &str, tried: Duration, last: &str) -> Error {
        match self {
            Self::Pool(address) if tried.is_zero() => connect::lost(address, open_jobs, what),
            Self::Pool(address) => connect::given_up(address, open_jobs, what, tried, last),
            Self::Job(subject) => subject.given_up(tried, last),
        }
    }

    /// The error if the coordinator sent a message that cannot be accepted.
    pub(super) fn violation(&self, violation: &Violation) -> Error {
        match (violation, self) {
            (Violation::Invalid(what), _) => self.protocol_error(what),
            (Violation::ItemsLost, Self::Job(subject)) => subject.dropped(),
            (Violation::ItemsLost, Self::Pool(_)) => self.protocol_error("has lost a job"),
            (Violation::JobReplaced, _) => {
                self.of_job(Error::invalid("the job was discarded in the meantime, and another one now has its name"))
            }
        }
    }

    /// The error if the first message was not `Welcome`.
    pub(super) fn not_welcomed(&self) -> Error {
        self.of_job(Error::protocol(format_args!("the first message from {} was not Welcome", self.address())))
    }

    /// The error if the session's thread cannot be started.
    pub(super) fn not_started(&self, error: &io::Error) -> Error {
        let thread = match self {
            Self::Pool(_) => "the pool's thread",
            Self::Job(_) => "the thread that talks to the coordinator",
        };
        self.of_job(Error::new(ErrorKind::Unavailable, format!("cannot start {thread}: {error}")))
    }

    /// The error if the program, which the coordinator needs, cannot be read.
    pub(super) fn unreadable(&self, error: &io::Error) -> Error {
        self.of_job(unreadable(self.address(), error))
    }

    fn protocol_error(&self, what: &str) -> Error {
        self.of_job(Error::protocol(format_args!("the coordinator at {} {what}", self.address())))
    }

    /// Adds the call and the job to an error, if the session is for one.
    fn of_job(&self, error: Error) -> Error {
        match self {
            Self::Pool(_) => error,
            Self::Job(subject) => subject.of_job(error),
        }
    }
}
