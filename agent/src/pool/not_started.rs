//! Describes why a program could not be started.

use std::io;

use farpool_proto::v1::{Failure, FailureKind};

use super::launcher::Launcher;
use crate::Host;
use crate::fork_server::Program;

/// Builds the failure. A program that came with its pool is rejected if it cannot run on this host. The client's own
/// program can run here, so its failure is the host's.
fn failure(host: &Host, shipped: bool, message: String) -> Failure {
    let kind = if shipped { FailureKind::ProgramRejected } else { FailureKind::Unavailable };
    Failure { kind: kind.into(), message, host: host.name.clone(), ..Failure::default() }
}

/// The program cannot run on this host.
pub(super) fn incompatible(host: &Host, program: &Program, why: &str) -> Failure {
    failure(host, true, format!("the program {} {why}", program.name()))
}

/// The system failed to start the program.
pub(super) fn spawn_error(host: &Host, program: &Program, shipped: bool, error: &io::Error) -> Failure {
    if !shipped {
        return failure(host, false, format!("starting {}: {}", program.path.display(), program.describe(error)));
    }
    let message = format!("starting {} on host {}: {}", program.name(), host.name, program.describe(error));
    failure(host, program.is_at_fault(error), message)
}

/// The host cannot provide the memory that is shared with workers.
pub(super) fn no_memory(host: &Host, why: &str) -> Failure {
    failure(host, false, format!("cannot start workers on host {}: {why}", host.name))
}

/// The program did not reach `farpool::init()`. `what`: what it did instead.
pub(super) fn not_ready(launcher: &Launcher, host: &Host, what: &str, stderr: &str) -> Failure {
    let (program, shipped) = (launcher.program(), launcher.is_shipped());
    // The loader's message names the program by the client's path, which may not exist here.
    let called = program.arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let stderr = if called.is_empty() { stderr.to_owned() } else { stderr.replace(&*called, &program.name()) };
    let advice = if stderr.is_empty() { "make it the first line of main" } else { &stderr };
    let message = if shipped {
        format!("the program {} {what} on host {}: {advice}", program.name(), host.name)
    } else {
        format!("cannot start workers: the program {what}: {advice}")
    };
    failure(host, shipped, message)
}
