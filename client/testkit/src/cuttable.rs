//! Streams that a test can cut.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::oneshot;
use tonic::Status;

/// A stream that can be cut: then it ends like the stream of a lost connection.
#[derive(Debug)]
pub struct Cuttable<S> {
    stream: Option<S>,
    /// `None`: it can no longer be cut.
    cut: Option<oneshot::Receiver<()>>,
}

/// Cuts a stream. Dropping it has no effect on the stream.
#[derive(Debug)]
pub struct Cut(oneshot::Sender<()>);

impl<S> Cuttable<S> {
    /// Makes a stream cuttable.
    pub fn new(stream: S) -> (Cuttable<S>, Cut) {
        let (sender, cut) = oneshot::channel();
        (Cuttable { stream: Some(stream), cut: Some(cut) }, Cut(sender))
    }
}

impl Cut {
    /// Cuts the stream, if it has not ended.
    pub fn now(self) {
        let _ = self.0.send(());
    }
}

impl<S: Stream<Item = Result<T, Status>> + Unpin, T> Stream for Cuttable<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(cut) = &mut this.cut
            && let Poll::Ready(cut) = Pin::new(cut).poll(context)
        {
            this.cut = None;
            if cut.is_ok() {
                this.stream = None;
                return Poll::Ready(Some(Err(Status::unavailable("the test has cut the connection"))));
            }
        }
        match &mut this.stream {
            Some(stream) => Pin::new(stream).poll_next(context),
            None => Poll::Ready(None),
        }
    }
}
