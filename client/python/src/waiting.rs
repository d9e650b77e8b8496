//! Waits that Ctrl-C interrupts.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farpool_session::{Error, Inbox, Session};
use pyo3::prelude::*;

use crate::errors;

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

/// Runs a blocking call on another thread, and returns its result. If this thread is interrupted meanwhile, the result is dropped there.
pub(crate) fn interruptibly<T: Send + 'static>(
    py: Python<'_>,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let run = move || drop(sender.send(call()));
    thread::Builder::new().name("farpool-waiting".to_owned()).stack_size(farpool_session::STACK).spawn(run)?;
    receive(py, &Mutex::new(receiver))
}

/// Receives a result from another thread. `receiver` is used by one thread at a time.
pub(crate) fn receive<T: Send>(py: Python<'_>, receiver: &Mutex<Receiver<Result<T, Error>>>) -> PyResult<T> {
    let receive = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SLICE);
    let received = loop {
        match py.detach(receive) {
            Ok(received) => break received,
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                break Err(Error::protocol("a thread of this call ended unexpectedly"));
            }
        }
    };
    received.map_err(|error| errors::to_python(py, &error))
}
