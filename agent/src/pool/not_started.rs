//! Why a program could not be started, in words.

use std::io;

use farpool_proto::v1::{Failure, FailureKind};

use super::WorkerPool;
use super::death::seconds;
use crate::Host;
use crate::fork_server::Program;

/// A program that came with its pool is refused if it cannot run on this host; the client's own can, so that is a failure
/// of the host.
fn failure(host: &Host, shipped: bool, message: String) -> Failure {
    let kind = if shipped { FailureKind::ProgramRejected } else { FailureKind::Unavailable };
    Failure { kind: kind.into(), message, host: host.name.clone(), ..Failure::default() }
}

/// It is not even worth trying.
pub(super) fn unfit(host: &Host, program: &Program, why: &str) -> Failure {
    failure(host, true, format!("the program {} {why}", program.name()))
}

/// The system could not start it.
pub(super) fn refused_by_system(host: &Host, program: &Program, shipped: bool, error: &io::Error) -> Failure {
    if !shipped {
        return failure(host, false, format!("starting {}: {}", program.path.display(), program.describe(error)));
    }
    let message = format!("starting {} on host {}: {}", program.name(), host.name, program.describe(error));
    failure(host, program.is_at_fault(error), message)
}

/// No memory can be shared with workers.
pub(super) fn no_memory(host: &Host, why: &str) -> Failure {
    failure(host, false, format!("cannot start workers on host {}: {why}", host.name))
}

impl WorkerPool {
    /// It ended before it reached `farpool::init()`.
    pub(super) fn ended_too_early(&mut self, now: u64) -> Failure {
        let ended = self.supervision.fork_server.how_it_ended();
        let said = self.last_words_of_fork_server(now);
        self.not_up(&format!("ended ({ended}) before it reached farpool::init()"), &said)
    }

    /// It is still on its way to `farpool::init()`.
    pub(super) fn took_too_long(&mut self, now: u64) -> Failure {
        let waited = seconds(self.supervision.start_limit);
        let what = format!("did not reach farpool::init() within {waited}");
        let said = self.last_words_of_fork_server(now);
        self.not_up(&what, &said)
    }

    fn not_up(&self, what: &str, said: &str) -> Failure {
        // The loader calls it as its client does, which need not mean anything here.
        let program = &self.supervision.program;
        let called = program.arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let said = if called.is_empty() { said.to_owned() } else { said.replace(&*called, &program.name()) };
        let advice = if said.is_empty() { "make it the first line of main" } else { &said };
        let message = if self.shipped {
            format!("the program {} {what} on host {}: {advice}", program.name(), self.host.name)
        } else {
            format!("cannot start workers: the program {what}: {advice}")
        };
        failure(&self.host, self.shipped, message)
    }
}
