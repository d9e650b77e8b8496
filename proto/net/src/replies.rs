//! The frames of one connection, as a server sends them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::oneshot;
use tonic::Status;

use crate::frame::SessionMessage;
use crate::frames::Frames;

/// The frames of a session on one connection, as a server sends them: they can end in an error.
pub struct Replies<M: SessionMessage> {
    source: Source<M>,
}

enum Source<M: SessionMessage> {
    Frames(Frames<M>),
    Later(oneshot::Receiver<Result<Frames<M>, Status>>),
    Over,
}

/// Sets what [`Replies`] consist of. Dropping it ends them.
pub struct Reply<M: SessionMessage> {
    frames: oneshot::Sender<Result<Frames<M>, Status>>,
}

/// Makes replies whose session is not known yet. A call must be answered before its first frame arrives, since some
/// clients wait for the answer before they send.
pub fn replies<M: SessionMessage>() -> (Reply<M>, Replies<M>) {
    let (sender, receiver) = oneshot::channel();
    (Reply { frames: sender }, Replies { source: Source::Later(receiver) })
}

impl<M: SessionMessage> Reply<M> {
    /// Connects the replies to these frames. If the connection is gone, the session loses it.
    pub fn with(self, frames: Frames<M>) {
        // A returned value is dropped, which informs the session.
        let _ = self.frames.send(Ok(frames));
    }

    /// Ends the replies with this error.
    pub fn refuse(self, status: Status) {
        let _ = self.frames.send(Err(status));
    }
}

impl<M: SessionMessage> From<Frames<M>> for Replies<M> {
    fn from(frames: Frames<M>) -> Self {
        Self { source: Source::Frames(frames) }
    }
}

impl<M: SessionMessage> Stream for Replies<M> {
    type Item = Result<M::Frame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frames = match &mut self.source {
                Source::Frames(frames) => return frames.poll_frame(context),
                Source::Later(frames) => std::task::ready!(Pin::new(frames).poll(context)),
                Source::Over => return Poll::Ready(None),
            };
            self.source = match frames {
                Ok(Ok(frames)) => Source::Frames(frames),
                Ok(Err(status)) => {
                    self.source = Source::Over;
                    return Poll::Ready(Some(Err(status)));
                }
                Err(_) => Source::Over,
            };
        }
    }
}

impl<M: SessionMessage> fmt::Debug for Replies<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}

impl<M: SessionMessage> fmt::Debug for Reply<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
