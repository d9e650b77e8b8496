//! The life of a worker process: from its descriptors to its end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use farpool_agent::fork_server::message::{ROLE_VARIABLE, Request};
use farpool_agent::link::Memory;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::runtime;

/// Exit codes of workers that end for a reason of farpool's own; the agent's messages know them.
pub(super) use farpool_agent::exit_code as code;

/// What a worker is given at its start.
#[derive(Debug)]
pub(super) struct Descriptors {
    /// The shared memory.
    pub(super) memory: OwnedFd,
    /// The socket to the agent.
    pub(super) socket: OwnedFd,
    /// Where its stdout goes.
    pub(super) stdout: OwnedFd,
    /// Where its stderr goes.
    pub(super) stderr: OwnedFd,
}

impl Descriptors {
    /// From what came with a [`Request::Spawn`].
    pub(super) fn from_received(fds: Vec<OwnedFd>) -> Option<Descriptors> {
        let [memory, socket, stdout, stderr] = <[OwnedFd; 4]>::try_from(fds).ok()?;
        Some(Descriptors { memory, socket, stdout, stderr })
    }
}

/// Runs as a worker until the agent says stop or is gone. `parent` is the fork server's process id.
pub(super) fn work(descriptors: Descriptors, parent: nix::unistd::Pid) -> ! {
    // The fork server kills its workers when the client is gone; should somebody kill the fork server, this does.
    let armed = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if armed.is_err() || nix::unistd::getppid() != parent {
        exit(code::AGENT_GONE);
    }
    // Names are for ps and top only.
    let _ = nix::sys::prctl::set_name(c"farpool-worker");
    let outputs = nix::unistd::dup2_stdout(&descriptors.stdout).and(nix::unistd::dup2_stderr(&descriptors.stderr));
    if outputs.is_err() {
        exit(code::BROKEN_LINK);
    }
    drop((descriptors.stdout, descriptors.stderr));
    let Ok(memory) = Memory::open(descriptors.memory.as_fd()) else { exit(code::BROKEN_LINK) };
    drop(descriptors.memory);
    runtime::run(Arc::new(memory), descriptors.socket)
}

/// The entry of a worker that was not forked but started anew, because its fork server has threads.
pub(super) fn started_anew(fork_server: nix::unistd::Pid) -> ! {
    super::fork_server::forget(ROLE_VARIABLE);
    let Ok(socket) = super::fork_server::take_stdin() else { exit(code::BROKEN_LINK) };
    let Ok(Some((Request::Spawn { .. }, fds))) = Request::receive(socket.as_fd()) else { exit(code::BROKEN_LINK) };
    let Some(descriptors) = Descriptors::from_received(fds) else { exit(code::BROKEN_LINK) };
    drop(socket);
    work(descriptors, fork_server)
}

/// The agent has closed the connection: nobody wants this worker's results any more.
pub(super) fn agent_gone() -> ! {
    exit(code::AGENT_GONE)
}

/// The connection to the agent does not work any more.
pub(super) fn lost_connection(_: Errno) -> ! {
    exit(code::LOST_CONNECTION)
}

/// What lies in the shared memory makes no sense.
pub(super) fn broken_link() -> ! {
    exit(code::BROKEN_LINK)
}

#[expect(
    unsafe_code,
    reason = "ends the process without running the program's exit handlers, which may want what is broken"
)]
fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) may be called at any time and from any thread.
    unsafe { libc::_exit(code) }
}
