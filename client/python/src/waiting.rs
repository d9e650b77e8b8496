//! Waits that Ctrl-C interrupts.

use std::time::{Duration, Instant};

use farpool_session::{Inbox, Session};
use pyo3::prelude::*;

/// How long a thread waits before it looks for signals: Python's handlers run only when the main thread asks for them.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// Converts a timeout in seconds, as Python gives it, into a deadline. `None`: never.
pub(crate) fn deadline(timeout: Option<f64>) -> Option<Instant> {
    let seconds = timeout?.max(0.0);
    Instant::now().checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

/// Calls `wait` with deadlines, while detached, until it returns true or the deadline has passed; returns what it returned last.
pub(crate) fn wait_until(
    py: Python<'_>,
    deadline: Option<Instant>,
    wait: impl Fn(Instant) -> bool + Sync,
) -> PyResult<bool> {
    loop {
        let now = Instant::now();
        let slice = now + SLICE;
        let until = deadline.map_or(slice, |deadline| deadline.min(slice));
        if py.detach(|| wait(until)) {
            return Ok(true);
        }
        py.check_signals()?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(false);
        }
    }
}

/// Waits for deliveries of a job, or for a slice of time.
pub(crate) fn wait_for_news(py: Python<'_>, session: &Session, inbox: &Inbox) -> PyResult<()> {
    py.detach(|| session.wait(inbox, Some(Instant::now() + SLICE)));
    py.check_signals()
}
