//! Lazy maps: the consumer's own thread pulls the input, a bounded number of items ahead of the outcomes it takes.

mod arrivals;
mod caller_pulled;
mod consumer;
mod lazy_job;
#[cfg(test)]
mod tests;
mod thread_pulled;
mod window;

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use farpool_session::fork::Owned;
use futures_core::Stream;

use crate::args::Data;
use crate::error::Error;
pub(crate) use arrivals::Order;
pub(crate) use consumer::Consumer;
use consumer::Step;
pub(crate) use lazy_job::{LazyInput, LazyJob};
pub(crate) use window::Window;

/// The outcomes of [`imap`](crate::Pool::imap) or [`imap_unordered`](crate::Pool::imap_unordered): an [`Iterator`] and
/// a [`Stream`].
///
/// Nothing runs until you ask for the first outcome. The thread that asks also pulls the input, at most
/// [`buffersize`](crate::Job::buffersize) items ahead of the outcomes taken. So the input must not wait for these outcomes; if it
/// does, for example over a channel, use [`imap_from_thread`](crate::Job::imap_from_thread). An `Err` is about one item, and
/// the iteration continues. If the whole job ended (its pool was terminated, or failed), that error is the last. Dropping the
/// `Imap` cancels the job.
///
/// ```
/// fn square(n: u64) -> u64 {
///     n * n
/// }
///
/// fn main() -> Result<(), farpool::Error> {
///     farpool::init();
///     let pool = farpool::Pool::new(2)?;
///     // The input is endless: only as much of it is pulled as is needed.
///     let mut sum = 0;
///     for square in pool.imap(square, 1..).take(3) {
///         sum += square?;
///     }
///     assert_eq!(sum, 1 + 4 + 9);
///     Ok(())
/// }
/// ```
#[must_use = "nothing runs before an outcome is asked for"]
pub struct Imap<I: Iterator, R> {
    state: ImapState<I>,
    results: PhantomData<fn() -> R>,
}

enum ImapState<I> {
    Started(Owned<Box<LazyJob<I>>>),
    /// The job could not be started.
    Failed(Option<Error>),
}

impl<I: Iterator, R> Imap<I, R> {
    /// Returns how many attempts the item of the last outcome took, like [`Error::attempts`]: more than 1 only if a worker or host was
    /// lost, or if the job retries [failed items](crate::Job::retry_failed) or [panics](crate::Job::retry_panics). 0 before the first
    /// outcome.
    ///
    /// ```
    /// # fn main() -> Result<(), farpool::Error> {
    /// # farpool::init();
    /// let pool = farpool::Pool::new(2)?;
    /// let mut outcomes = pool.imap(|n: u64| n + 1, [1]);
    /// assert_eq!((outcomes.next().unwrap()?, outcomes.attempts()), (2, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn attempts(&self) -> u32 {
        match &self.state {
            ImapState::Started(job) => job.attempts(),
            ImapState::Failed(_) => 0,
        }
    }

    /// Stops retrying items that panic or count as failed, despite [`retry_panics`](crate::Job::retry_panics) and
    /// [`retry_failed`](crate::Job::retry_failed). Use it when you only wait for running items to finish. Items that already wait
    /// for another attempt still get it, and items whose worker or host is lost are retried as before.
    pub fn stop_retries(&mut self) {
        match &mut self.state {
            ImapState::Started(job) => job.stop_retries(),
            ImapState::Failed(_) => {}
        }
    }

    pub(crate) fn new(job: Result<LazyJob<I>, Error>) -> Self {
        let state = match job {
            Ok(job) => ImapState::Started(Owned::of(job.owner(), Box::new(job))),
            Err(error) => ImapState::Failed(Some(error)),
        };
        Self { state, results: PhantomData }
    }
}

impl<T: Data, I: Iterator<Item = T>, R: Data> Iterator for Imap<I, R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let job = match &mut self.state {
            ImapState::Started(job) => job,
            ImapState::Failed(error) => return error.take().map(Err),
        };
        loop {
            match job.step() {
                Step::Outcome(outcome) => return Some(outcome),
                Step::Over => return None,
                Step::Wait => job.wait(),
            }
        }
    }
}

impl<T: Data, I: Iterator<Item = T>, R: Data> FusedIterator for Imap<I, R> {}

impl<T: Data, I: Iterator<Item = T>, R: Data> Stream for Imap<I, R> {
    type Item = Result<R, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let job = match &mut self.state {
            ImapState::Started(job) => job,
            ImapState::Failed(error) => return Poll::Ready(error.take().map(Err)),
        };
        loop {
            match job.step() {
                Step::Outcome(outcome) => return Poll::Ready(Some(outcome)),
                Step::Over => return Poll::Ready(None),
                Step::Wait if !job.wake_on_arrival(context.waker()) => return Poll::Pending,
                Step::Wait => {}
            }
        }
    }
}

impl<I: Iterator, R> fmt::Debug for Imap<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").finish_non_exhaustive()
    }
}

// No field is pinned: the input is called through `&mut`, and it is in a box.
impl<I: Iterator, R> Unpin for Imap<I, R> {}
