//! The main function of a worker process.

use std::os::fd::AsFd;
use std::sync::Arc;

use farpool_link::Memory;
use farpool_link::message::{ROLE_VARIABLE, Request};
use nix::sys::signal::Signal;

use crate::descriptors::{self, Descriptors};
use crate::language::Language;
use crate::leave::{code, exit};
use crate::runtime;

/// Runs as a worker until the agent stops it or exits. `parent` is the fork server's process id.
pub(crate) fn work(descriptors: Descriptors, parent: nix::unistd::Pid, language: &'static dyn Language) -> ! {
    // The fork server kills its workers when the client exits. If the fork server itself is killed, this signal kills
    // them.
    let armed = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if armed.is_err() || nix::unistd::getppid() != parent {
        exit(code::AGENT_GONE);
    }
    // Shown by ps and top.
    let _ = nix::sys::prctl::set_name(c"farpool-worker");
    let outputs = nix::unistd::dup2_stdout(&descriptors.stdout).and(nix::unistd::dup2_stderr(&descriptors.stderr));
    if outputs.is_err() {
        exit(code::BROKEN_LINK);
    }
    drop((descriptors.stdout, descriptors.stderr));
    let Ok(memory) = Memory::open(descriptors.memory.as_fd()) else { exit(code::BROKEN_LINK) };
    drop(descriptors.memory);
    runtime::run(Arc::new(memory), descriptors.socket, language)
}

/// Runs a worker that was not forked but started again, because its fork server has threads.
pub(crate) fn started_again(fork_server: nix::unistd::Pid, language: &'static dyn Language) -> ! {
    descriptors::forget(ROLE_VARIABLE);
    let Ok(socket) = descriptors::take_stdin() else { exit(code::BROKEN_LINK) };
    let Ok(Some((Request::Spawn { worker }, fds))) = Request::receive(socket.as_fd()) else { exit(code::BROKEN_LINK) };
    let Some(descriptors) = Descriptors::from_received(fds) else { exit(code::BROKEN_LINK) };
    drop(socket);
    language.started_again(worker);
    work(descriptors, fork_server, language)
}
