//! Which jobs' inputs this thread is pulling: an input that waits for the outcome of its own job would wait for ever.

use std::cell::RefCell;

use farpool_session::Inbox;

use crate::error::Error;

thread_local! {
    /// Jobs, outermost first: an input may run other jobs.
    static JOBS: RefCell<Vec<*const Inbox>> = const { RefCell::new(Vec::new()) };
}

/// This thread pulls the input of a job until this is dropped.
#[must_use = "the input is pulled while this lives"]
pub(crate) struct Pulling(());

/// This thread begins to pull the input of the job with this inbox.
pub(crate) fn begin(inbox: &Inbox) -> Pulling {
    JOBS.with_borrow_mut(|jobs| jobs.push(inbox));
    Pulling(())
}

/// An error if this thread pulls the input of the job with this inbox.
pub(crate) fn refuse_own(inbox: &Inbox) -> Result<(), Error> {
    if !JOBS.with_borrow(|jobs| jobs.iter().any(|job| std::ptr::eq(*job, inbox))) {
        return Ok(());
    }
    Err(inbox.tell(Error::invalid(
        "the input waits for the outcome of its own job, which cannot be ready before the input has ended: run the job with \
         imap_from_thread, and feed its input through a channel",
    )))
}

impl Drop for Pulling {
    fn drop(&mut self) {
        JOBS.with_borrow_mut(Vec::pop);
    }
}
