//! State that belongs to one process.
//!
//! After fork(2) the child has a copy of its parent's objects, mappings and descriptors. But the threads behind them exist
//! only in the parent, and what the two share (rings, sockets, epolls) belongs to the parent. So state of a process is marked
//! with its [`Owner`]. In a child, calls are refused before they take a lock, which a thread of the parent may have held at
//! the fork, and drops do nothing. State in statics is created again ([`PerProcess`]).
//!
//! [`farpool_link::fork`] describes how a fork is detected.

#[cfg(test)]
mod tests;

pub use farpool_link::fork::{Owned, Owner, PerProcess, end_if_forked, generation};

use crate::error::{Error, Remedy};

/// Refuses calls to a pool in a fork of its owner.
#[inline]
pub fn check_pool(owner: Owner) -> Result<(), Error> {
    if owner.is_here() { Ok(()) } else { Err(refuse(owner, "the pool was opened", ": open a pool in the fork")) }
}

/// Refuses calls to a detached job's connection in a fork of its owner.
#[inline]
pub fn check_detached(owner: Owner) -> Result<(), Error> {
    let refuse = || refuse(owner, "the call to the coordinator was made", "").with_remedy(Remedy::CallAgain);
    if owner.is_here() { Ok(()) } else { Err(refuse()) }
}

#[cold]
fn refuse(owner: Owner, what: &str, advice: &str) -> Error {
    let pid = owner.pid();
    Error::invalid(format!("{what} by process {pid}; this process is a fork of it{advice}"))
}
