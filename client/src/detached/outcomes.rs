use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use farpool_session::detached::{JobReader, ReadEnd, Step};
use futures_core::Stream;

use super::cancelled;
use crate::args::Data;
use crate::codec;
use crate::error::{Error, ErrorKind};

/// The outcomes of a detached job, in the order of its items: an [`Iterator`] and a [`Stream`]; created by
/// [`Detached::iter`](crate::Detached::iter).
///
/// The first outcome belongs to the first item, and so on. An `Err` is about one item, and the iteration continues. If the
/// whole job ended early (it was cancelled, or cannot run) or can no longer be read, that error is the last, and names no item.
///
/// At most a few MiB are read ahead.
#[must_use = "outcomes are read but never taken"]
pub struct Outcomes<R> {
    reader: JobReader,
    name: String,
    over: bool,
    results: PhantomData<fn() -> R>,
}

impl<R: Data> Outcomes<R> {
    pub(super) fn new(reader: JobReader, name: &str) -> Self {
        Self { reader, name: name.to_owned(), over: false, results: PhantomData }
    }

    /// Returns the bytes that were read and not taken.
    #[cfg(test)]
    pub(crate) fn read_ahead(&self) -> u64 {
        self.reader.bytes()
    }

    /// Returns the next outcome; pending if it has not arrived.
    fn step(&mut self) -> Poll<Option<Result<R, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let end = match self.reader.step(decode) {
            Step::Wait => return Poll::Pending,
            Step::Outcome(_, outcome) => return Poll::Ready(Some(outcome.map_err(Error::from))),
            Step::Missing(item) => {
                let error = Error::new(ErrorKind::Cancelled, "the job was cancelled before the item had an outcome");
                return Poll::Ready(Some(Err(error.of_item(item).of_job("iter", &self.name))));
            }
            Step::Ended(end) => end,
        };
        self.over = true;
        Poll::Ready(match end {
            ReadEnd::Finished => None,
            ReadEnd::Failed(error) | ReadEnd::Broken(error) => Some(Err(error.into())),
            ReadEnd::Cancelled | ReadEnd::Running => Some(Err(cancelled("iter", &self.name, self.reader.items()))),
        })
    }
}

impl<R: Data> Iterator for Outcomes<R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Poll::Ready(outcome) => return outcome,
                Poll::Pending => self.reader.wait(None),
            }
        }
    }
}

impl<R: Data> FusedIterator for Outcomes<R> {}

impl<R: Data> Stream for Outcomes<R> {
    type Item = Result<R, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.step() {
                Poll::Ready(outcome) => return Poll::Ready(outcome),
                Poll::Pending if self.reader.wake_on_arrival(context.waker()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<R> fmt::Debug for Outcomes<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Decodes a result.
#[doc(hidden)]
pub fn decode<R: Data>(bytes: &[u8]) -> Result<R, Error> {
    codec::decode(bytes).map_err(|error| Error::new(ErrorKind::Codec, error.0))
}
