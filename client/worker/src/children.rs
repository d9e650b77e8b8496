//! Reports when children end, whichever thread gets the signal.

#![expect(unsafe_code, reason = "a signal handler; argued at each block")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The descriptor that the handler writes to; -1: none.
static EVENT: AtomicI32 = AtomicI32::new(-1);

/// A descriptor that is readable after a child of this process has ended.
///
/// A signalfd would suffice if this process had only one thread. With more, the signal goes to a thread that does not
/// block it.
pub(crate) struct Children {
    event: EventFd,
}

impl Children {
    /// Installs the signal handler.
    pub(crate) fn listen() -> nix::Result<Children> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        EVENT.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
        handle_with(SigHandler::Handler(notify))?;
        Ok(Children { event })
    }

    /// Returns the descriptor to wait on.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Clears the event before the ended children are reaped.
    pub(crate) fn clear(&self) {
        // EAGAIN: there was no event.
        let _ = self.event.read();
    }

    /// Restores the default in a worker that was forked from this process.
    pub(crate) fn forget(&self) {
        let _ = handle_with(SigHandler::SigDfl);
        EVENT.store(-1, Ordering::SeqCst);
        let _ = nix::unistd::close(self.event.as_fd().as_raw_fd());
    }
}

fn handle_with(handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: `notify` only does what a signal handler may: it loads an atomic and writes to a descriptor.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.map(|_| ())
}

extern "C" fn notify(_: i32) {
    let event = EVENT.load(Ordering::SeqCst);
    let one = 1u64.to_ne_bytes();
    // SAFETY: write(2) is async-signal-safe, and `one` outlives the call. It may change errno, which the interrupted
    // code may be about to read, so errno is restored.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(event, one.as_ptr().cast(), one.len());
        *libc::__errno_location() = errno;
    }
}
