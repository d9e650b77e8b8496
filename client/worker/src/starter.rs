//! Who has started this process: what proves that it is part of a pool.
//!
//! The environment cannot: a program hands it on to whatever it starts. What is proof is the socket that is stdin of a fork
//! server and of a worker that was started anew: it is of a kind that nobody else makes a stdin of, and the kernel knows who
//! has made it, which must be this process's parent.

use std::io;

use farpool_link::process::Process;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::unistd::{Pid, getppid};

/// Who has started this process.
pub(crate) enum Starter {
    /// An agent or a fork server, which is its parent.
    Parent(Pid),
    /// One of these, and it has ended since.
    Gone,
    /// Somebody who has nothing to do with pools.
    Other,
}

/// How long a process may take to end once its children are no longer its own, in milliseconds: the kernel does little between.
const ENDING_MS: u16 = 1000;

/// Who has started this process; to be asked before its stdin is taken.
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
    // What a fork server's own program starts before `init` inherits its stdin as well: then the maker of the socket still runs, and
    // did so when it was not this process's parent. One that has ended may wait to be reaped; and one that is about to end has no
    // children any more for a moment before it has ended, in which a process of the pool would take itself for the program.
    match Process::open(pid) {
        Ok(maker) if !maker.ends_within(ENDING_MS) => Starter::Other,
        _ => Starter::Gone,
    }
}
