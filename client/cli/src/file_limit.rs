//! The limit on the size of files (`ulimit -f`).

#![expect(unsafe_code, reason = "sets a signal handler; the block says why that is sound")]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Makes a write beyond the limit an error from now on, which would otherwise end this process.
///
/// The signal is handled, not ignored: commands would inherit that. If it was ignored before, it stays ignored.
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
