//! Detects forks of this process, and resets statics in them.
//!
//! Forks are detected by pthread_atfork(3), so that a check costs one load. A child created without it (by clone(2)
//! itself, `_Fork` or vfork) is not detected: it may only call exec or `_exit`.

#![expect(unsafe_code, reason = "pthread_atfork and _exit; argued at the blocks")]

mod owner;
mod per_process;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::libc;
pub use owner::{Owned, Owner};
pub use per_process::PerProcess;

/// Number of forks between the first process that watched for them and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Returns this process's generation. It differs between two processes if one is a fork of the other.
#[inline]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Detects forks from now on.
pub fn watch() {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    if WATCHING.load(Ordering::Acquire) {
        return;
    }
    // Two threads may both get here. Then a fork counts twice, which is harmless.
    // SAFETY: the handler is a static function, and only does what is allowed in a forked child of a process with
    // threads: it changes an atomic.
    let errno = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    assert_eq!(errno, 0, "pthread_atfork: out of memory");
    WATCHING.store(true, Ordering::Release);
}

/// Exits if this process was forked since that generation: user code has forked on a thread of farpool's and returned
/// in the child. The thread's work belongs to the parent.
#[inline]
pub fn end_if_forked(since: u32, whose: &str) {
    if generation() != since {
        end(whose);
    }
}

#[cold]
fn end(whose: &str) -> ! {
    eprintln!(
        "farpool: process {} was forked in {whose} and returned from it, so it was stopped. Let the forked process call exec or \
         _exit, or fork on one of the program's own threads",
        std::process::id()
    );
    // SAFETY: _exit(2) may be called at any time. Exit handlers are the parent's.
    unsafe { libc::_exit(1) }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
