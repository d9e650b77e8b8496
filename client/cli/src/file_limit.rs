//! The limit on the size of files (`ulimit -f`).

#![expect(unsafe_code, reason = "what a signal does to this process; argued at the block")]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// A write beyond the limit is an error from now on, and not the end of this process.
///
/// The signal is handled, not ignored: commands would inherit that. If whoever has started this process ignores it, it stays so.
pub(crate) fn survive() {
    let handled = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing, which may be done at any time.
    let _ = unsafe {
        sigaction(Signal::SIGXFSZ, &handled).and_then(|before| match before.handler() {
            SigHandler::SigIgn => sigaction(Signal::SIGXFSZ, &before),
            _ => Ok(before),
        })
    };
}

extern "C" fn nothing(_: libc::c_int) {}
