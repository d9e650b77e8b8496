//! What a process is given at its start, by descriptors and in its environment.

#![expect(unsafe_code, reason = "takes over a descriptor and changes the environment; argued at each block")]

use std::os::fd::{FromRawFd, OwnedFd};

/// What a worker is given at its start.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// The shared memory.
    pub(crate) memory: OwnedFd,
    /// The socket to the agent.
    pub(crate) socket: OwnedFd,
    /// Where its stdout goes.
    pub(crate) stdout: OwnedFd,
    /// Where its stderr goes.
    pub(crate) stderr: OwnedFd,
}

impl Descriptors {
    /// From what came with a [`Request::Spawn`].
    pub(crate) fn from_received(fds: Vec<OwnedFd>) -> Option<Descriptors> {
        let [memory, socket, stdout, stderr] = <[OwnedFd; 4]>::try_from(fds).ok()?;
        Some(Descriptors { memory, socket, stdout, stderr })
    }
}

/// The program and what it starts must not take themselves for part of this pool.
pub(crate) fn forget(variable: &str) {
    // SAFETY: farpool::init() is the first line of main, so as a rule this is the only thread. Where a runtime has
    // started threads before, they are idle: they have been given no work yet that could read the environment.
    unsafe { std::env::remove_var(variable) };
}

/// Takes the socket that is stdin, and leaves an empty stdin.
pub(crate) fn take_stdin() -> nix::Result<OwnedFd> {
    let socket = nix::fcntl::fcntl(std::io::stdin(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: fcntl has just made this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let null = nix::fcntl::open(
        "/dev/null",
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(socket)
}
