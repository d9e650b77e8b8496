//! Printing while a progress bar may be on the screen.
//!
//! Prints the output of workers on a cluster and farpool's own messages, in whole lines above the bar. It writes to the
//! descriptors directly, because the user's program may hold the locks of `std::io` for any time.

use std::io::IsTerminal;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use farpool_session::fork::PerProcess;
use indicatif::ProgressBar;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The visible bars, each with its number.
static BARS: PerProcess<Mutex<Vec<(u64, ProgressBar)>>> = PerProcess::new();

/// Writes whole lines to stdout or stderr, above the bars. Blocks until they are written. A closed stream is no error.
pub(crate) fn write(to: BorrowedFd<'_>, lines: &[u8]) {
    if !to.is_terminal() {
        return write_all(to, lines);
    }
    // Bars may start and end meanwhile; a clone is another handle of the same bar.
    let shown = bars().clone();
    above(&shown, &mut || write_all(to, lines));
}

/// Shows a bar until dropped.
pub(crate) struct ShownBar(u64);

impl ShownBar {
    pub(crate) fn new(bar: &ProgressBar) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        bars().push((number, bar.clone()));
        Self(number)
    }

    /// Draws the bar for the last time. Other threads print their lines only afterwards; otherwise they would continue the line of
    /// the unfinished bar.
    pub(crate) fn end(self, draw: impl FnOnce()) {
        let mut bars = bars();
        self.leave(&mut bars);
        draw();
        drop(bars);
        std::mem::forget(self);
    }

    fn leave(&self, bars: &mut Vec<(u64, ProgressBar)>) {
        bars.retain(|(number, _)| *number != self.0);
    }
}

impl Drop for ShownBar {
    fn drop(&mut self) {
        self.leave(&mut bars());
    }
}

fn above(shown: &[(u64, ProgressBar)], work: &mut dyn FnMut()) {
    match shown {
        [] => work(),
        [(_, bar), others @ ..] => bar.suspend(|| above(others, work)),
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            // The descriptor was made non-blocking.
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return,
        }
    }
}

fn bars() -> MutexGuard<'static, Vec<(u64, ProgressBar)>> {
    BARS.get().lock().unwrap_or_else(PoisonError::into_inner)
}
