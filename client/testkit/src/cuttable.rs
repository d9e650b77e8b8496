//! Streams that a test can cut.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::Status;

/// A stream that can be cut: then it ends like the stream of a lost connection.
#[derive(Debug)]
pub struct Cuttable<S, T> {
    /// `None`: it was cut.
    stream: Option<S>,
    /// What the test puts between the stream's own items.
    inserted: UnboundedReceiver<Result<T, Status>>,
}

/// Cuts a stream. Dropping it has no effect on the stream.
#[derive(Debug)]
pub struct Cut<T>(UnboundedSender<Result<T, Status>>);

impl<S, T> Cuttable<S, T> {
    /// Makes a stream cuttable.
    pub fn new(stream: S) -> (Cuttable<S, T>, Cut<T>) {
        let (sender, inserted) = unbounded_channel();
        (Cuttable { stream: Some(stream), inserted }, Cut(sender))
    }
}

impl<T> Cut<T> {
    /// Cuts the stream, if it has not ended.
    pub fn now(&self) {
        let _ = self.0.send(Err(Status::unavailable("the test has cut the connection")));
    }

    /// Inserts an item before those that were not read yet.
    pub fn insert(&self, item: T) {
        let _ = self.0.send(Ok(item));
    }
}

impl<S: Stream<Item = Result<T, Status>> + Unpin, T> Stream for Cuttable<S, T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        match this.inserted.poll_recv(context) {
            Poll::Ready(Some(inserted)) => {
                if inserted.is_err() {
                    this.stream = None;
                }
                Poll::Ready(Some(inserted))
            }
            // It can no longer be cut, or it was not cut yet.
            Poll::Ready(None) | Poll::Pending => Pin::new(stream).poll_next(context),
        }
    }
}
