//! The receiving end of a session.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;

use crate::frame::{Parts, SessionMessage, Unpacker};
use crate::session::{FrameCounts, FrameSink, Refused};
use crate::stream::{self, BoxStream};

/// Frames that have arrived are passed on together, up to this many messages or bytes, so that the cost of passing them
/// on no longer matters.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 256 << 10;

/// The receiving end of a session, on one of its connections: see [`crate::Outgoing::incoming`]. Nothing is read before
/// [`Incoming::next`] is called. Not calling it slows the sender down, which protects a full receiver.
pub struct Incoming<M: SessionMessage> {
    stream: BoxStream<M>,
    unpacker: Unpacker,
    session: Arc<dyn FrameSink>,
    connection: u64,
    /// How the stream has ended, if messages were still to be returned before that.
    end: Option<Result<(), Status>>,
    garbled: bool,
}

impl<M: SessionMessage> Incoming<M> {
    pub(crate) fn new(stream: BoxStream<M>, limit: u64, session: Arc<dyn FrameSink>, connection: u64) -> Self {
        Self { stream, unpacker: Unpacker::new(limit), session, connection, end: None, garbled: false }
    }

    /// Returns the messages that the next frames complete; none if they have only pieces of a large one, or only
    /// acknowledge. `None`: the stream has ended. The future may be dropped at any time without losing anything.
    ///
    /// # Errors
    /// If the connection is lost, if another one has replaced it, or if the peer sends an invalid frame. Then end the
    /// session, or resume it on another connection.
    pub async fn next(&mut self) -> Result<Option<Vec<M>>, Status> {
        if let Some(end) = self.end.take() {
            return end.map(|()| None);
        }
        poll_fn(|context| self.poll_messages(context)).await
    }

    fn poll_messages(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<M>>, Status>> {
        let (mut together, mut bytes, mut has_frame) = (Vec::new(), 0, false);
        for _ in 0..TOGETHER {
            let end = match self.stream.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(frame))) => match self.open(frame) {
                    Ok((messages, size)) => {
                        (has_frame, bytes) = (true, bytes + size);
                        if together.is_empty() {
                            together = messages;
                        } else {
                            together.extend(messages);
                        }
                        let enough = together.len() >= TOGETHER || bytes >= TOGETHER_BYTES;
                        if enough || self.unpacker.held() > 0 {
                            break;
                        }
                        continue;
                    }
                    Err(status) => Err(status),
                },
                Poll::Ready(Some(Err(status))) => Err(status),
                Poll::Ready(None) => Ok(()),
                Poll::Pending if !has_frame => return Poll::Pending,
                Poll::Pending => break,
            };
            if together.is_empty() {
                return Poll::Ready(end.map(|()| None));
            }
            self.end = Some(end);
            break;
        }
        Poll::Ready(Ok(Some(together)))
    }

    /// Handles a frame; returns the messages that it completes, and their approximate size.
    fn open(&mut self, frame: M::Frame) -> Result<(Vec<M>, usize), Status> {
        let opened = self.unpack(frame);
        self.garbled |= matches!(opened, Err(Refused::Garbled(_)));
        opened.map_err(|refused| match refused {
            Refused::Replaced => stream::replaced(),
            Refused::Garbled(status) => status,
        })
    }

    fn unpack(&mut self, frame: M::Frame) -> Result<(Vec<M>, usize), Refused> {
        let Parts { messages, piece, received, handshake } = M::open(frame);
        if handshake.is_some() {
            return Err(Refused::Garbled(stream::not_alone("a handshake")));
        }
        let messages = self.unpacker.unpack::<M>(messages, piece).map_err(Refused::Garbled)?;
        // Counting the size of many messages would cost more than it saves.
        let many = messages.len() >= TOGETHER;
        let bytes = if many { TOGETHER_BYTES } else { messages.iter().map(M::encoded_len).sum() };
        self.session.receive(self.connection, FrameCounts { messages: messages.len() as u64, bytes, received })?;
        Ok((messages, bytes))
    }

    /// Whether the session ended because the peer sent something invalid. Otherwise the error comes from the peer or
    /// from the connection.
    pub fn peer_broke_protocol(&self) -> bool {
        self.garbled
    }

    /// Returns the bytes that are held of an incomplete message.
    pub fn held(&self) -> usize {
        self.unpacker.held()
    }
}

impl<M: SessionMessage> fmt::Debug for Incoming<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("held", &self.held()).finish_non_exhaustive()
    }
}
