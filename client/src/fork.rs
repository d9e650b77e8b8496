//! What belongs to one process.
//!
//! After fork(2) the child has a copy of everything that its parent has: of objects, of mappings, of descriptors. But the
//! threads behind them exist in the parent alone, and what the two share (rings, sockets, epolls) is the parent's. So what
//! lives in a process is marked with its [`Owner`]: in a child, calls are refused before they take a lock, which a thread of
//! the parent may have held at the fork, and drops do nothing. What is kept in statics begins anew ([`PerProcess`]).
//!
//! How a fork is noticed is told in [`farpool_link::fork`].

#![expect(unsafe_code, reason = "_exit; argued at the block")]

#[cfg(test)]
mod tests;

use std::ops::Deref;

pub(crate) use farpool_link::fork::{PerProcess, generation, watch};

use crate::error::Error;

/// Ends this process if it was forked since that generation. A user's code has forked it on a thread of farpool's, and has
/// come back in the child as well, which nothing here expects: the thread's work is the parent's.
#[inline]
pub(crate) fn end_if_forked(since: u32, whose: &str) {
    if generation() != since {
        end(whose);
    }
}

#[cold]
fn end(whose: &str) -> ! {
    eprintln!(
        "farpool: process {} was forked in {whose} and returned from it, so it ends here. Let the forked process call exec or \
         _exit, or fork on one of the program's own threads",
        std::process::id()
    );
    // SAFETY: _exit(2) may be called at any time; exit handlers are for whoever leaves by himself.
    unsafe { libc::_exit(1) }
}

/// The process that something belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    generation: u32,
    pid: u32,
}

impl Owner {
    /// This process.
    pub(crate) fn this_process() -> Self {
        watch();
        Self { generation: generation(), pid: std::process::id() }
    }

    /// Whether this is still that process, and not a fork of it.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.generation == generation()
    }

    /// Refuses what a fork of the process asks of its pool.
    #[inline]
    pub(crate) fn check_pool(self) -> Result<(), Error> {
        if self.is_here() { Ok(()) } else { Err(self.refuse("the pool was opened", "open a pool in the fork")) }
    }

    /// Refuses what a fork of the process asks of its connection for a detached job.
    #[inline]
    pub(crate) fn check_detached(self) -> Result<(), Error> {
        let advice = "call it again, or attach(..) to the job here";
        if self.is_here() { Ok(()) } else { Err(self.refuse("the call to the coordinator was made", advice)) }
    }

    #[cold]
    fn refuse(self, what: &str, advice: &str) -> Error {
        let pid = self.pid;
        Error::invalid(format!("{what} by process {pid}; this process is a fork of it: {advice}"))
    }
}

/// A value that only its process drops: in a fork of that, it is left as it is.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    owner: Owner,
    /// Taken by the drop only.
    value: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::of(Owner::this_process(), value)
    }

    /// One that belongs to whom something else belongs.
    pub(crate) fn of(owner: Owner, value: T) -> Self {
        Self { owner, value: Some(value) }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("only the drop takes it")
    }
}

impl<T> std::ops::DerefMut for Owned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("only the drop takes it")
    }
}

impl<T: Clone> Clone for Owned<T> {
    fn clone(&self) -> Self {
        Self { owner: self.owner, value: self.value.clone() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.owner.is_here() {
            std::mem::forget(self.value.take());
        }
    }
}
