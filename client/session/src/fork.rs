//! What belongs to one process.
//!
//! After fork(2) the child has a copy of everything that its parent has: of objects, of mappings, of descriptors. But the
//! threads behind them exist in the parent alone, and what the two share (rings, sockets, epolls) is the parent's. So what
//! lives in a process is marked with its [`Owner`]: in a child, calls are refused before they take a lock, which a thread of
//! the parent may have held at the fork, and drops do nothing. What is kept in statics begins anew ([`PerProcess`]).
//!
//! How a fork is noticed is told in [`farpool_link::fork`].

#[cfg(test)]
mod tests;

pub use farpool_link::fork::{Owned, Owner, PerProcess, end_if_forked, generation};

use crate::error::{Error, Remedy};

/// Refuses what a fork of the owner asks of its pool.
#[inline]
pub fn check_pool(owner: Owner) -> Result<(), Error> {
    if owner.is_here() { Ok(()) } else { Err(refuse(owner, "the pool was opened", ": open a pool in the fork")) }
}

/// Refuses what a fork of the owner asks of its connection for a detached job.
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
