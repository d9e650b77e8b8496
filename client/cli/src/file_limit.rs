//! The limit on the size of files (`ulimit -f`).

#![expect(unsafe_code, reason = "sets a signal handler; the block says why that is sound")]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// From now on, a write beyond the limit is an error instead of ending this process.
///
/// The signal is handled and not ignored, because commands would inherit that. If it was ignored before, it stays
/// ignored.
pub(crate) fn handle_signal() {
    let handled = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, which is safe at any time.
    let _ = unsafe {
        sigaction(Signal::SIGXFSZ, &handled).and_then(|before| match before.handler() {
            SigHandler::SigIgn => sigaction(Signal::SIGXFSZ, &before),
            _ => Ok(before),
        })
    };
}

extern "C" fn nothing(_: libc::c_int) {}
