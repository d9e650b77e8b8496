//! Messages in frames: many small ones in one, a large one in pieces over several.

use std::fmt::Debug;

use bytes::Bytes;
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentFrame, ClientEvent, ClientFrame, ClientMessage, CommandFrame, EventFrame, Piece,
    Resume, Resumed,
};
use farpool_proto::{Batch, parts};
use prost::Message;
use tonic::Status;

/// Messages are gathered up to about this size: enough that what a frame costs does not count any more.
pub(crate) const FRAME_BYTES: usize = 256 << 10;
/// And up to so many of them, since each takes more memory than bytes.
pub(crate) const FRAME_MESSAGES: usize = 8192;
/// Messages above this size travel in pieces: then nobody has to take a larger frame than this, and a bit, at once.
pub(crate) const WHOLE_BYTES: usize = 2 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// A message of a session, and the frames that it travels in.
pub trait SessionMessage: Message + Clone + Default + 'static {
    /// Its frame.
    type Frame: Message + Default + 'static;
    /// What is alone in the first frame of a connection that goes on with a session: [`Resume`] from the side that
    /// connects, [`Resumed`] from the other one.
    type Handshake: Debug + Send + Sync + 'static;

    /// A frame of this.
    fn frame(parts: Parts<Self>) -> Self::Frame;

    /// What is in a frame.
    fn open(frame: Self::Frame) -> Parts<Self>;
}

/// What is in a frame.
#[derive(Debug)]
pub struct Parts<M: SessionMessage> {
    /// Whole messages.
    pub messages: Batch<M>,
    /// A piece of a large one.
    pub piece: Option<Piece>,
    /// How many messages of the other side were taken in; 0: nothing is said about it.
    pub received: u64,
    /// How a connection goes on with a session.
    pub handshake: Option<M::Handshake>,
}

impl<M: SessionMessage> Default for Parts<M> {
    fn default() -> Self {
        Self { messages: Batch::default(), piece: None, received: 0, handshake: None }
    }
}

macro_rules! session_messages {
    ($($message:ident in $frame:ident with $handshake:ident as $field:ident,)*) => {$(
        impl SessionMessage for $message {
            type Frame = $frame;
            type Handshake = $handshake;

            fn frame(parts: Parts<Self>) -> $frame {
                let Parts { messages, piece, received, handshake: $field } = parts;
                $frame { messages, piece, received, $field }
            }

            fn open(frame: $frame) -> Parts<Self> {
                let $frame { messages, piece, received, $field: handshake } = frame;
                Parts { messages, piece, received, handshake }
            }
        }
    )*};
}

session_messages! {
    ClientMessage in ClientFrame with Resume as resume,
    ClientEvent in EventFrame with Resumed as resumed,
    AgentEvent in AgentFrame with Resume as resume,
    AgentCommand in CommandFrame with Resumed as resumed,
}

/// Cuts a large message into pieces.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// What is left of the message, and the size of the whole.
    rest: Bytes,
    total: u64,
}

impl Cutter {
    pub(crate) fn new(message: &impl Message) -> Self {
        let rest = Bytes::from(message.encode_to_vec());
        Self { total: rest.len() as u64, rest }
    }

    /// The next piece.
    pub(crate) fn cut(&mut self) -> Piece {
        Piece { total: self.total, data: self.rest.split_to(self.rest.len().min(PIECE_BYTES)) }
    }

    pub(crate) fn is_through(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Takes messages out of frames. What a peer sends may be anything.
#[derive(Debug)]
pub(crate) struct Unpacker {
    /// The largest message that is taken, in bytes.
    limit: u64,
    total: u64,
    pieces: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, total: 0, pieces: Vec::new() }
    }

    /// The messages that a frame with these in it completes, in order; none as long as a large one is not whole.
    pub(crate) fn unpack<M: SessionMessage>(
        &mut self,
        messages: Batch<M>,
        piece: Option<Piece>,
    ) -> Result<Vec<M>, Status> {
        match piece {
            None if self.total > 0 => {
                Err(Status::invalid_argument("another frame came between the pieces of a message"))
            }
            None => Ok(messages.into_vec()),
            Some(_) if !messages.is_empty() => Err(Status::invalid_argument("a frame has messages and a piece")),
            Some(piece) => self.add(piece),
        }
    }

    /// Bytes of a message that is not whole yet.
    pub(crate) fn held(&self) -> usize {
        self.pieces.len()
    }

    fn add<M: SessionMessage>(&mut self, piece: Piece) -> Result<Vec<M>, Status> {
        let Piece { total, data } = piece;
        if total > self.limit {
            let limit = self.limit;
            return Err(Status::resource_exhausted(format!("a message of {total} bytes, and the limit is {limit}")));
        }
        if self.total != 0 && self.total != total {
            let message = format!("a piece of a message of {total} bytes came among those of one of {}", self.total);
            return Err(Status::invalid_argument(message));
        }
        let left = total - self.pieces.len() as u64;
        if data.is_empty() || data.len() as u64 > left {
            let message = format!("a piece of {} bytes of a message of which {left} are missing", data.len());
            return Err(Status::invalid_argument(message));
        }
        self.make_room(data.len(), left as usize)?;
        self.total = total;
        self.pieces.extend_from_slice(&data);
        if (self.pieces.len() as u64) < total {
            return Ok(Vec::new());
        }
        self.total = 0;
        let whole = Bytes::from(std::mem::take(&mut self.pieces));
        debug_assert_eq!(whole.len() as u64, total);
        let wrong =
            |why: String| Status::invalid_argument(format!("a message of {total} bytes cannot be decoded: {why}"));
        parts::check::<M>(&whole).map_err(|error| wrong(error.to_string()))?;
        M::decode(whole).map(|message| vec![message]).map_err(|error| wrong(error.to_string()))
    }

    /// Makes room for so many bytes, of so many that are still to come by what the peer says. It may be lying, so what was
    /// announced takes no memory before it is there.
    fn make_room(&mut self, bytes: usize, left: usize) -> Result<(), Status> {
        if self.pieces.capacity() - self.pieces.len() >= bytes {
            return Ok(());
        }
        let more = bytes.max(self.pieces.len()).min(left);
        self.pieces.try_reserve_exact(more).map_err(|_| {
            let whole = self.pieces.len() + left;
            Status::resource_exhausted(format!("there is no memory for a message of {whole} bytes"))
        })
    }
}

#[cfg(test)]
mod tests;
