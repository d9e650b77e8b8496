//! The error of an operator's command, with advice.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use farpool_common::address::AddressError;
use farpool_common::causes::root_cause;
use farpool_proto::text::Lines;
use tonic::{Code, Status};

/// An error with advice on what to do next.
#[derive(Debug)]
pub(crate) struct OperatorError {
    kind: Kind,
    message: String,
    advice: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Address,
    Unreachable,
    /// The coordinator does not know the job or agent.
    NotFound,
    Refused,
    Here,
}

const START_OR_NAME: &str =
    "start one there with `farpool-coordinator`, or name another with --address or FARPOOL_ADDRESS";

impl OperatorError {
    pub(super) fn address(error: &AddressError) -> Self {
        let advice = "a coordinator's address comes from --address or FARPOOL_ADDRESS";
        Self { kind: Kind::Address, message: error.to_string(), advice }
    }

    pub(super) fn unreachable(address: &str, error: &(dyn Error + 'static)) -> Self {
        let message = format!("cannot reach the coordinator at {address}: {}", root_cause(error));
        Self { kind: Kind::Unreachable, message, advice: START_OR_NAME }
    }

    pub(super) fn silent(address: &str, waited: Duration) -> Self {
        let message = format!("the server at {address} did not answer within {} s", waited.as_secs());
        Self { kind: Kind::Unreachable, message, advice: START_OR_NAME }
    }

    pub(super) fn refused(address: &str, status: Status) -> Self {
        let message = status.message();
        match status.code() {
            Code::NotFound => Self { kind: Kind::NotFound, message: message.to_owned(), advice: "" },
            // The coordinator's message says everything.
            Code::FailedPrecondition => Self { kind: Kind::Refused, message: message.to_owned(), advice: "" },
            Code::Unimplemented => {
                let message = format!("the server at {address} is not a farpool coordinator that serves operators");
                Self { kind: Kind::Refused, message, advice: START_OR_NAME }
            }
            Code::Unavailable | Code::Unknown if status.source().is_some() => {
                let message = format!("lost the connection to the coordinator at {address}: {}", root_cause(&status));
                Self { kind: Kind::Unreachable, message, advice: "check whether it is still running" }
            }
            Code::DeadlineExceeded | Code::Cancelled => {
                let message = format!("the coordinator at {address} did not answer in time");
                Self { kind: Kind::Unreachable, message, advice: "check whether its host is overloaded" }
            }
            code => {
                let message = format!("the coordinator at {address} refused: {message} ({code:?})");
                Self { kind: Kind::Refused, message, advice: "" }
            }
        }
    }

    /// The argument is a number and also a detached job's name.
    pub(super) fn ambiguous(job: &str) -> Self {
        let message = format!(
            "{job} is the name of a detached job, but could also be a job's number: choose with --number or --detached"
        );
        Self { kind: Kind::Here, message, advice: "" }
    }

    /// The argument is the beginning of several agents' ids.
    pub(super) fn ambiguous_id(begun: &str, count: usize) -> Self {
        let message = format!("the ids of {count} agents begin with {begun}");
        Self { kind: Kind::Here, message, advice: "give more of the id, as `farpool agents` shows it" }
    }

    /// Adds advice for [`Kind::NotFound`].
    pub(super) fn advise(self, advice: &'static str) -> Self {
        if self.kind == Kind::NotFound { Self { advice, ..self } } else { self }
    }

    pub(super) fn runtime(error: io::Error) -> Self {
        Self { kind: Kind::Here, message: format!("cannot set up networking: {error}"), advice: "" }
    }

    pub(super) fn stdout(error: io::Error) -> Self {
        Self { kind: Kind::Here, message: format!("cannot write to stdout: {error}"), advice: "" }
    }
}

impl fmt::Display for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Lines(&self.message))?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "; {}", self.advice) }
    }
}

impl Error for OperatorError {}
