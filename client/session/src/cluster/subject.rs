use std::time::Duration;

use farpool_net::dial::reason;
use tonic::{Code, Status};

use super::connect;
use super::location::{JobLocation, JobRef};
use crate::error::{Error, ErrorKind};

/// The call and its job, for errors.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    location: JobLocation,
    /// The name of the call in errors.
    verb: &'static str,
    job: JobRef,
}

impl Subject {
    pub(super) fn new(location: &JobLocation, verb: &'static str, job: &JobRef) -> Self {
        Self { location: location.clone(), verb, job: job.clone() }
    }

    pub(super) fn verb(&self) -> &'static str {
        self.verb
    }

    pub(super) fn job(&self) -> &JobRef {
        &self.job
    }

    pub(super) fn location(&self) -> &JobLocation {
        &self.location
    }

    /// The error if the coordinator refused the call.
    pub(super) fn refused(&self, status: &Status) -> Error {
        let (words, address) = (reason(status), &self.location.address);
        let unavailable = |words: String| Error::new(ErrorKind::Unavailable, words);
        self.of_job(match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Error::invalid(words),
            Code::NotFound => Error::invalid(format!("{words}; `farpool results` lists the detached jobs")),
            Code::AlreadyExists => {
                let discard = format!("discard that job with `farpool results {} --discard`", self.job.name);
                Error::invalid(format!("{words}; choose another name, or {discard}"))
            }
            Code::Unauthenticated | Code::PermissionDenied => Error::new(ErrorKind::Unauthenticated, words),
            Code::DataLoss if self.detaches() => return self.dropped(),
            Code::ResourceExhausted if words.contains("journal") => unavailable(format!(
                "{words}; discard jobs that are no longer needed (`farpool results` lists them, `farpool results NAME --discard` \
                 discards one), or restart the coordinator with a larger --journal-size"
            )),
            Code::Unimplemented => unavailable(format!(
                "the server at {address} does not support detached jobs: it is another version of farpool-coordinator, or something else"
            )),
            _ => unavailable(format!("the coordinator at {address} refused: {words}")),
        })
    }

    /// The error if the coordinator could not be reached at all.
    pub(super) fn unreachable(&self, status: &Status) -> Error {
        self.of_job(connect::unreachable(&self.location.address, &reason(status)))
    }

    /// The error if the call could not be completed within this time. `last` is the last failure.
    pub(super) fn given_up(&self, tried: Duration, last: &str) -> Error {
        let address = &self.location.address;
        let message = match tried.is_zero() {
            true => format!("the connection to {address} was lost: {last}"),
            false => format!("the connection to {address} was lost; could not reconnect within {tried:?}: {last}"),
        };
        self.of_job(Error::new(ErrorKind::Unavailable, format!("{message}; {}", self.advice())))
    }

    /// The error if the coordinator has lost durable items of a job that is being detached.
    pub(super) fn dropped(&self) -> Error {
        let message = format!(
            "the coordinator at {} has dropped the incomplete job: the connection was lost for too long, or the job was discarded; \
             detach it again",
            self.location.address
        );
        self.of_job(Error::new(ErrorKind::Unavailable, message))
    }

    /// Returns the text for a stream that ended before the session.
    pub(super) fn ended_early(&self) -> &'static str {
        match self.detaches() {
            true => "the coordinator ended the call before the whole job was durable",
            false => "the coordinator ended the call before the job had ended",
        }
    }

    /// Adds the call and the job to an error.
    pub(super) fn of_job(&self, error: Error) -> Error {
        error.of_job(self.verb, &self.job.name)
    }

    /// Returns what to do when the coordinator is lost.
    fn advice(&self) -> &'static str {
        match self.detaches() {
            true => "check with `farpool results` whether the job exists anyway; if not, detach it again",
            false => "the job is not affected: try again, or see FARPOOL_RECONNECT_TIMEOUT",
        }
    }

    fn detaches(&self) -> bool {
        self.verb == "detach"
    }
}
