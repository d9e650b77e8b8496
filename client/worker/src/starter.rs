//! Finds out who started this process, which proves that it is part of a pool.
//!
//! The environment proves nothing: programs pass it on. The proof is the socket that is stdin of a fork server, and of
//! a worker that was started again. No other program uses such a socket as stdin. The kernel knows its creator, which
//! must be this process's parent.

use std::io;

use farpool_link::process::Process;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::unistd::{Pid, getppid};

/// The process that started this one.
pub(crate) enum Starter {
    /// An agent or a fork server, which is its parent.
    Parent(Pid),
    /// An agent or a fork server that has exited since.
    Gone,
    /// Another process.
    Other,
}

/// How long a process may take to exit after it has lost its children, in milliseconds.
const EXIT_MS: u16 = 1000;

/// Returns who started this process. Call it before stdin is taken.
pub(crate) fn of_this_process() -> Starter {
    let stdin = io::stdin();
    if getsockopt(&stdin, sockopt::SockType) != Ok(SockType::SeqPacket) {
        return Starter::Other;
    }
    let Ok(peer) = getsockopt(&stdin, sockopt::PeerCredentials) else { return Starter::Other };
    let pid = Pid::from_raw(peer.pid());
    if pid == getppid() {
        return Starter::Parent(pid);
    }
    // A process that the program starts before `init` inherits this stdin, too; then the socket's creator still runs. A
    // creator that has exited may not be reaped yet. One that is about to exit loses its children a moment before it
    // ends; without the wait, a process of the pool would believe that it is the program.
    match Process::open(pid) {
        Ok(maker) if !maker.ends_within(EXIT_MS) => Starter::Other,
        _ => Starter::Gone,
    }
}
