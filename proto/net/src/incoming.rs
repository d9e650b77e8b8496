//! What comes in on a session.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tonic::{Status, Streaming};

use crate::frame::{SessionMessage, Unpacker};

/// Frames that are there already are taken together up to so many messages, or bytes: then what it costs to hand them on
/// does not count any more.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 256 << 10;

/// The receiving end of a session. Nothing is read before [`Incoming::next`] is called: whoever does not call it slows
/// the sender down, which is how a full receiver defends itself.
pub struct Incoming<M: SessionMessage> {
    stream: Streaming<M::Frame>,
    unpacker: Unpacker,
    /// How the stream has ended, if that was seen when there were still messages in front of it.
    end: Option<Result<(), Status>>,
    garbled: bool,
}

impl<M: SessionMessage> Incoming<M> {
    /// Takes messages of up to `limit` bytes out of a gRPC stream.
    pub fn new(stream: Streaming<M::Frame>, limit: u64) -> Self {
        Self { stream, unpacker: Unpacker::new(limit), end: None, garbled: false }
    }

    /// The messages of the next frames; none if it was a piece of a large one. `None`: the stream has ended. May be
    /// dropped at any time without losing anything.
    ///
    /// # Errors
    /// If the connection is lost, or if the peer sends what is no frame: end the session then.
    pub async fn next(&mut self) -> Result<Option<Vec<M>>, Status> {
        if let Some(end) = self.end.take() {
            return end.map(|()| None);
        }
        poll_fn(|context| self.poll_messages(context)).await
    }

    fn poll_messages(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Vec<M>>, Status>> {
        let (mut together, mut bytes) = (Vec::new(), 0);
        for _ in 0..TOGETHER {
            let end = match Pin::new(&mut self.stream).poll_next(context) {
                Poll::Ready(Some(Ok(frame))) => match self.unpacker.unpack(frame) {
                    Ok(messages) => {
                        // To count what many messages take would cost more than it saves.
                        let many = together.len() + messages.len() >= TOGETHER;
                        bytes += if many { TOGETHER_BYTES } else { messages.iter().map(M::encoded_len).sum() };
                        if together.is_empty() {
                            together = messages;
                        } else {
                            together.extend(messages);
                        }
                        if bytes >= TOGETHER_BYTES || self.unpacker.held() > 0 {
                            break;
                        }
                        continue;
                    }
                    Err(status) => {
                        self.garbled = true;
                        Err(status)
                    }
                },
                Poll::Ready(Some(Err(status))) => Err(status),
                Poll::Ready(None) => Ok(()),
                Poll::Pending if together.is_empty() => return Poll::Pending,
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

    /// Whether the session ended because of what the peer sent. Otherwise the error is the peer's word, or that of the
    /// connection.
    pub fn is_garbled(&self) -> bool {
        self.garbled
    }

    /// Bytes that are held of a message that is not whole yet.
    pub fn held(&self) -> usize {
        self.unpacker.held()
    }
}

impl<M: SessionMessage> fmt::Debug for Incoming<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("held", &self.held()).finish_non_exhaustive()
    }
}
