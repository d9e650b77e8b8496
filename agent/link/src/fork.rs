//! Forks of this process: that there was one, and statics that begin anew in it.
//!
//! A fork is noticed by pthread_atfork(3), so that asking costs a load. A child that was made without it (by clone(2)
//! itself, by `_Fork`, by vfork) is not noticed: it may only call exec or `_exit`.

#![expect(unsafe_code, reason = "pthread_atfork; argued at the block")]

mod per_process;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::libc;
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

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
