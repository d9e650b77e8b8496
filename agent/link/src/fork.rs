//! Forks of this process: that there was one, and statics that begin anew in it.
//!
//! A fork is noticed by pthread_atfork(3), so that asking costs a load. A child that was made without it (by clone(2)
//! itself, by `_Fork`, by vfork) is not noticed: it may only call exec or `_exit`.

#![expect(unsafe_code, reason = "pthread_atfork and _exit; argued at the blocks")]

mod owner;
mod per_process;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::libc;
pub use owner::{Owned, Owner};
pub use per_process::PerProcess;

/// How many forks lie between the first process that watched for them and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// This process's generation. Two processes have different ones if one of them is a fork of the other.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Has forks noticed from now on.
pub fn watch() {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    if WATCHING.load(Ordering::Acquire) {
        return;
    }
    // Two threads may both come here. Then a fork counts twice, which is as good as once.
    // SAFETY: the handler is a function that lives for ever and only does what may be done in a forked child of a process
    // with threads: it changes an atomic.
    let errno = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    assert_eq!(errno, 0, "pthread_atfork: out of memory");
    WATCHING.store(true, Ordering::Release);
}

/// Ends this process if it was forked since that generation. A user's code has forked it on a thread of farpool's, and has
/// come back in the child as well, which nothing here expects: the thread's work is the parent's.
#[inline]
pub fn end_if_forked(since: u32, whose: &str) {
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

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
