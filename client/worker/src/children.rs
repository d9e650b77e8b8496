//! Hearing of the end of children, whichever thread the system tells.

#![expect(unsafe_code, reason = "a signal handler; argued at each block")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The descriptor that the handler writes to; -1: none.
static TOLD: AtomicI32 = AtomicI32::new(-1);

/// Readable after a child of this process has ended.
///
/// A signalfd would do if this process had one thread only: with more, the signal goes to one that does not block it.
pub(crate) struct Children {
    event: EventFd,
}

impl Children {
    /// Listens from now on.
    pub(crate) fn listen() -> nix::Result<Children> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        TOLD.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
        handle_with(SigHandler::Handler(tell))?;
        Ok(Children { event })
    }

    /// What to wait on.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Everything heard so far is being looked after.
    pub(crate) fn clear(&self) {
        // EAGAIN: there was nothing.
        let _ = self.event.read();
    }

    /// A worker, forked from this process, deals with its children as it likes.
    pub(crate) fn forget(&self) {
        let _ = handle_with(SigHandler::SigDfl);
        TOLD.store(-1, Ordering::SeqCst);
        let _ = nix::unistd::close(self.event.as_fd().as_raw_fd());
    }
}

fn handle_with(handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: `tell` only does what a signal handler may: it loads an atomic and writes to a descriptor.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.map(|_| ())
}

extern "C" fn tell(_: i32) {
    let event = TOLD.load(Ordering::SeqCst);
    let one = 1u64.to_ne_bytes();
    // SAFETY: write(2) is async-signal-safe, and `one` outlives the call. It may change errno, which the interrupted
    // code could be about to look at, so that is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(event, one.as_ptr().cast(), one.len());
        *libc::__errno_location() = errno;
    }
}
