//! The frames of one connection, in the form that gRPC takes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use farpool_proto::Batch;
use futures_core::Stream;
use tonic::Status;

use crate::frame::{Cutter, Parts, SessionMessage};
use crate::kept::{Taken, size_of_messages};
use crate::session::Session;
use crate::stream::replaced;

/// The frames of a session on one connection, as a client sends them. They end when another connection replaces this
/// one.
pub struct Frames<M: SessionMessage> {
    session: Arc<Session<M>>,
    connection: u64,
    /// The handshake in the first frame.
    handshake: Option<M::Handshake>,
    /// A large message that is being sent.
    cutter: Cutter,
}

impl<M: SessionMessage> Frames<M> {
    pub(crate) fn new(session: Arc<Session<M>>, connection: u64, handshake: Option<M::Handshake>) -> Self {
        Self { session, connection, handshake, cutter: Cutter::default() }
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<M::Frame, Status>>> {
        if !self.cutter.is_done() {
            return self.piece();
        }
        let session = &self.session;
        let mut state = session.state();
        if state.connection != self.connection {
            return Poll::Ready(Some(Err(replaced())));
        }
        if self.handshake.is_some() {
            let handshake = self.handshake.take();
            return Poll::Ready(Some(Ok(M::frame(Parts { handshake, ..Parts::default() }))));
        }
        if state.awaits_answer {
            session.queue().waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let (is_window_full, whole) = {
            let mut queue = session.queue();
            if queue.is_window_full() && !state.must_acknowledge() {
                queue.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            (queue.is_window_full(), queue.whole)
        };
        if state.kept.nothing_to_resend() && !is_window_full {
            let mut queue = session.queue();
            state.kept.refill(&mut queue.messages);
            if state.kept.nothing_to_resend() && !(state.must_acknowledge() && queue.end.is_none()) {
                return match &queue.end {
                    Some(end) => Poll::Ready(end.clone().err().map(Err)),
                    None => {
                        queue.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                };
            }
        }
        let taken = if is_window_full { None } else { state.kept.take(whole) };
        let messages = match taken {
            Some(Taken::Whole(messages, size)) => {
                session.change(|queue| queue.sent += size);
                Batch::shared(messages)
            }
            Some(Taken::Large(message)) => {
                drop(state);
                self.cutter = message.first().map(Cutter::new).unwrap_or_default();
                return self.piece();
            }
            // Only to acknowledge.
            None => Batch::default(),
        };
        let received = state.acknowledgement(false);
        Poll::Ready(Some(Ok(M::frame(Parts { messages, received, ..Parts::default() }))))
    }

    fn piece(&mut self) -> Poll<Option<Result<M::Frame, Status>>> {
        let mut state = self.session.state();
        if state.connection != self.connection {
            return Poll::Ready(Some(Err(replaced())));
        }
        let piece = self.cutter.cut();
        let last = self.cutter.is_done();
        if last {
            state.kept.sent_last_piece();
        }
        self.session.change(|queue| queue.sent += size_of_messages::<M>(piece.data.len(), usize::from(last)));
        let received = state.acknowledgement(false);
        Poll::Ready(Some(Ok(M::frame(Parts { piece: Some(piece), received, ..Parts::default() }))))
    }
}

// Nothing in it is ever pinned.
impl<M: SessionMessage> Unpin for Frames<M> {}

impl<M: SessionMessage> Stream for Frames<M> {
    type Item = M::Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M::Frame>> {
        self.get_mut().poll_frame(context).map(|frame| frame.and_then(Result::ok))
    }
}

impl<M: SessionMessage> Drop for Frames<M> {
    fn drop(&mut self) {
        self.session.connection_lost(self.connection);
    }
}

impl<M: SessionMessage> fmt::Debug for Frames<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("connection", &self.connection).finish_non_exhaustive()
    }
}
