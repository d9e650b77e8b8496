//! The descriptors and environment that a process gets at its start.

#![expect(unsafe_code, reason = "takes over a descriptor and changes the environment; argued at each block")]

use std::os::fd::{FromRawFd, OwnedFd};

/// The descriptors that a worker gets at its start.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// The shared memory.
    pub(crate) memory: OwnedFd,
    /// The socket to the agent.
    pub(crate) socket: OwnedFd,
    /// Its stdout.
    pub(crate) stdout: OwnedFd,
    /// Its stderr.
    pub(crate) stderr: OwnedFd,
}

impl Descriptors {
    /// Creates them from the descriptors of a [`Request::Spawn`].
    pub(crate) fn from_received(fds: Vec<OwnedFd>) -> Option<Descriptors> {
        let [memory, socket, stdout, stderr] = <[OwnedFd; 4]>::try_from(fds).ok()?;
        Some(Descriptors { memory, socket, stdout, stderr })
    }
}

/// Removes a variable, so that the program and what it starts do not believe that they are part of this pool.
pub(crate) fn forget(variable: &str) {
    // SAFETY: farpool::init() is the first line of main, so this is usually the only thread. If a runtime has started
    // threads before, they are idle: no work yet reads the environment.
    unsafe { std::env::remove_var(variable) };
}

/// Takes the socket that is stdin, and replaces stdin with /dev/null.
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
