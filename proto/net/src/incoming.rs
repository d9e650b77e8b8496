//! What comes in on a session.

use std::fmt;

use tonic::{Status, Streaming};

use crate::frame::{SessionMessage, Unpacker};

/// The receiving end of a session. Nothing is read before [`Incoming::next`] is called: whoever does not call it slows
/// the sender down, which is how a full receiver defends itself.
pub struct Incoming<M: SessionMessage> {
    stream: Streaming<M::Frame>,
    unpacker: Unpacker,
    garbled: bool,
}

impl<M: SessionMessage> Incoming<M> {
    /// Takes messages of up to `limit` bytes out of a gRPC stream.
    pub fn new(stream: Streaming<M::Frame>, limit: u64) -> Self {
        Self { stream, unpacker: Unpacker::new(limit), garbled: false }
    }

    /// The messages of the next frame; none if it was a piece of a large one. `None`: the stream has ended. May be
    /// dropped at any time without losing anything.
    ///
    /// # Errors
    /// If the connection is lost, or if the peer sends what is no frame: end the session then.
    pub async fn next(&mut self) -> Result<Option<Vec<M>>, Status> {
        match self.stream.message().await? {
            None => Ok(None),
            Some(frame) => {
                let messages = self.unpacker.unpack(frame);
                self.garbled |= messages.is_err();
                messages.map(Some)
            }
        }
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
