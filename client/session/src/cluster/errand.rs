//! What a session is for, in whose words its errors are told.

use std::io;
use std::time::Duration;

use tonic::{Code, Status};

use super::Address;
use super::connect;
use super::kept::Lie;
use super::subject::Subject;
use super::upload::unreadable;
use crate::error::{Error, ErrorKind};

/// What a session is for.
#[derive(Clone)]
pub(super) enum Errand {
    /// A pool, at the coordinator with this address.
    Pool(Address),
    /// One detached job: it is sent to the coordinator, or read.
    Job(Subject),
}

/// A job's connection that lasted this long counts as progress.
const LASTING: Duration = Duration::from_secs(2);

impl Errand {
    pub(super) fn address(&self) -> &Address {
        match self {
            Self::Pool(address) => address,
            Self::Job(subject) => &subject.place().address,
        }
    }

    /// Returns whether it is one detached job.
    pub(super) fn is_job(&self) -> bool {
        matches!(self, Self::Job(_))
    }

    /// Returns how long a connection must last to count as progress.
    pub(super) fn lasting(&self) -> Duration {
        if self.is_job() { LASTING } else { Duration::ZERO }
    }

    /// Returns whether this answer makes another attempt to reconnect pointless.
    pub(super) fn is_final(&self, status: &Status) -> bool {
        match self {
            // Other clients may have left by the next attempt.
            Self::Pool(_) => status.code() != Code::ResourceExhausted && connect::is_final(status),
            Self::Job(_) => connect::is_final(status),
        }
    }

    /// Returns how the coordinator's end of the stream is told.
    pub(super) fn ended_early(&self) -> &'static str {
        match self {
            Self::Pool(_) => "it ended the session",
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
            Self::Pool(address) => connect::lost(address, open_jobs, &connect::told(status)),
            Self::Job(subject) => subject.refused(status),
        }
    }

    /// The error if the coordinator sent what is no frame.
    pub(super) fn garbled(&self, open_jobs: usize, status: &Status) -> Error {
        match self {
            Self::Pool(address) => connect::lost(address, open_jobs, &connect::told(status)),
            Self::Job(_) => self.nonsense(&format!("sent an invalid frame: {}", status.message())),
        }
    }

    /// The error if the session could not reconnect within this time. `what` is how the connection was lost, and `last` how the last
    /// attempt failed.
    pub(super) fn given_up(&self, open_jobs: usize, what: &str, tried: Duration, last: &str) -> Error {
        match self {
            Self::Pool(address) if tried.is_zero() => connect::lost(address, open_jobs, what),
            Self::Pool(address) => connect::given_up(address, open_jobs, what, tried, last),
            Self::Job(subject) => subject.given_up(tried, last),
        }
    }

    /// The error if the coordinator said what cannot be true.
    pub(super) fn lied(&self, lie: &Lie) -> Error {
        match (lie, self) {
            (Lie::Nonsense(what), _) => self.nonsense(what),
            (Lie::Lost, Self::Job(subject)) => subject.dropped(),
            (Lie::Lost, Self::Pool(_)) => self.nonsense("has lost a job"),
            (Lie::Replaced, _) => {
                self.tell(Error::invalid("the job was discarded in the meantime, and another one now has its name"))
            }
        }
    }

    /// The error if the first message was another one than it must be.
    pub(super) fn not_welcomed(&self) -> Error {
        self.tell(Error::protocol(format_args!("the first message from {} was not Welcome", self.address())))
    }

    /// The error if the session's thread cannot be started.
    pub(super) fn not_started(&self, error: &io::Error) -> Error {
        let thread = match self {
            Self::Pool(_) => "the pool's thread",
            Self::Job(_) => "the thread that talks to the coordinator",
        };
        self.tell(Error::new(ErrorKind::Unavailable, format!("cannot start {thread}: {error}")))
    }

    /// The error if the program, which the coordinator needs, cannot be read.
    pub(super) fn unreadable(&self, error: &io::Error) -> Error {
        self.tell(unreadable(self.address(), error))
    }

    fn nonsense(&self, what: &str) -> Error {
        self.tell(Error::protocol(format_args!("the coordinator at {} {what}", self.address())))
    }

    /// Adds the call and the job to an error, if the session is for one.
    fn tell(&self, error: Error) -> Error {
        match self {
            Self::Pool(_) => error,
            Self::Job(subject) => subject.tell(error),
        }
    }
}
