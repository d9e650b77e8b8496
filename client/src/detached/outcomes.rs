use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::cancelled;
use crate::args::Data;
use crate::cluster::detached::{End, Reading, Step};
use crate::codec;
use crate::error::{Error, ErrorKind};

/// The outcomes of a detached job, in the order of its items: an [`Iterator`] and a [`Stream`]; made by
/// [`Detached::iter`](crate::Detached::iter).
///
/// The first is that of the first item, and so on: an `Err` stands for its item alone and the iteration goes on, unless the
/// whole job ended before its items did (it was cancelled, or cannot run) or cannot be asked for any more: that error, which
/// names no item, is the last.
///
/// It is read ahead, a few MiB at most.
#[must_use = "outcomes are read and not taken"]
pub struct Outcomes<R> {
    reading: Reading,
    name: String,
    over: bool,
    results: PhantomData<fn() -> R>,
}

impl<R: Data> Outcomes<R> {
    pub(super) fn new(reading: Reading, name: &str) -> Self {
        Self { reading, name: name.to_owned(), over: false, results: PhantomData }
    }

    /// Bytes that were read and not taken.
    #[cfg(test)]
    pub(crate) fn read_ahead(&self) -> usize {
        self.reading.bytes()
    }

    /// The next outcome; pending: it is not there yet.
    fn step(&mut self) -> Poll<Option<Result<R, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let end = match self.reading.step(decode) {
            Step::Wait => return Poll::Pending,
            Step::Outcome(_, outcome) => return Poll::Ready(Some(outcome)),
            Step::Missing(item) => {
                let error = Error::new(ErrorKind::Cancelled, "the job was cancelled before the item had an outcome");
                return Poll::Ready(Some(Err(error.of_item(item).of_job("iter", &self.name))));
            }
            Step::Ended(end) => end,
        };
        self.over = true;
        Poll::Ready(match end {
            End::Finished => None,
            End::Failed(error) | End::Broken(error) => Some(Err(error)),
            End::Cancelled | End::Running => Some(Err(cancelled("iter", &self.name, self.reading.items()))),
        })
    }
}

impl<R: Data> Iterator for Outcomes<R> {
    type Item = Result<R, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Poll::Ready(outcome) => return outcome,
                Poll::Pending => self.reading.wait(),
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
                Poll::Pending if self.reading.wake_for_news(context.waker()) => {}
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

/// A result of its bytes.
pub(super) fn decode<R: Data>(bytes: &[u8]) -> Result<R, Error> {
    codec::decode(bytes).map_err(|error| Error::new(ErrorKind::Codec, error.0))
}
