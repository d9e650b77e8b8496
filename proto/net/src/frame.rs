//! Messages in frames: many small ones in one frame, a large one in pieces over several.

mod rope;

use std::fmt::Debug;

use bytes::Bytes;
use farpool_proto::Batch;
use farpool_proto::decode::{self, DecodeError};
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentFrame, ClientEvent, ClientFrame, ClientMessage, CommandFrame, EventFrame, Piece,
    Resume, Resumed,
};
use prost::Message;
use rope::Rope;
use tonic::Status;

/// Messages are gathered up to about this size, so that the cost of a frame no longer matters.
pub(crate) const FRAME_BYTES: usize = 256 << 10;
/// The most messages in a frame, since each takes more memory than bytes.
pub(crate) const FRAME_MESSAGES: usize = 8192;
/// Larger messages travel in pieces, so that no frame is much larger. An item of 1 MiB travels whole: joining pieces
/// costs one more copy.
pub(crate) const WHOLE_BYTES: usize = (1 << 20) + (64 << 10);
const PIECE_BYTES: usize = 256 << 10;

/// A message of a session, and the frames that it travels in.
pub trait SessionMessage: Message + Clone + Default + 'static {
    /// Its frame.
    type Frame: Message + Default + 'static;
    /// Is alone in the first frame of a connection that resumes a session: [`Resume`] from the side that connects,
    /// [`Resumed`] from the other one.
    type Handshake: Debug + Send + Sync + 'static;

    /// Makes a frame of these parts.
    fn frame(parts: Parts<Self>) -> Self::Frame;

    /// Returns the parts of a frame.
    fn open(frame: Self::Frame) -> Parts<Self>;
}

/// The parts of a frame.
#[derive(Debug)]
pub struct Parts<M: SessionMessage> {
    /// Whole messages.
    pub messages: Batch<M>,
    /// A piece of a large one.
    pub piece: Option<Piece>,
    /// How many messages of the other side were received; 0: not stated.
    pub received: u64,
    /// The handshake of a connection that resumes a session.
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
    /// The rest of the message, and the size of the whole.
    rest: Rope,
    total: u64,
}

impl Cutter {
    pub(crate) fn new(message: &impl Message) -> Self {
        let mut rest = Rope::default();
        message.encode(&mut rest).expect("a rope grows as needed");
        Self { rest, total: message.encoded_len() as u64 }
    }

    /// Returns the next piece.
    pub(crate) fn cut(&mut self) -> Piece {
        Piece { total: self.total, data: self.rest.take(PIECE_BYTES) }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Extracts messages from frames. A peer may send anything.
#[derive(Debug)]
pub(crate) struct Unpacker {
    /// The size of the largest accepted message, in bytes.
    limit: u64,
    /// The size of the large message whose pieces are arriving; 0: none.
    total: u64,
    /// Bytes of it that have arrived.
    arrived: u64,
    /// Pieces are kept unchanged until all have arrived: growing a buffer repeatedly would take more memory than they
    /// do.
    pieces: Vec<Bytes>,
}

/// Memory of a piece in addition to its bytes.
const PIECE_COST: usize = 96;

impl Unpacker {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, total: 0, arrived: 0, pieces: Vec::new() }
    }

    /// Returns the messages that a frame with these parts completes, in order; none while a large one is incomplete.
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

    /// Returns the bytes that an incomplete message takes.
    pub(crate) fn held(&self) -> usize {
        self.arrived as usize + self.pieces.len() * PIECE_COST
    }

    fn add<M: SessionMessage>(&mut self, piece: Piece) -> Result<Vec<M>, Status> {
        let Piece { total, data } = piece;
        if total > self.limit {
            let limit = self.limit;
            return Err(Status::resource_exhausted(format!("a message of {total} bytes, and the limit is {limit}")));
        }
        if self.total != 0 && self.total != total {
            let message =
                format!("a piece of a message of {total} bytes, before the last piece of one of {} bytes", self.total);
            return Err(Status::invalid_argument(message));
        }
        let left = total - self.arrived;
        if data.is_empty() || data.len() as u64 > left {
            let message = format!("a piece of {} bytes of a message of which {left} are missing", data.len());
            return Err(Status::invalid_argument(message));
        }
        self.total = total;
        self.arrived += data.len() as u64;
        self.pieces.push(data);
        if self.arrived < total {
            return Ok(Vec::new());
        }
        let whole = self.join()?;
        let wrong =
            |why: DecodeError| Status::invalid_argument(format!("a message of {total} bytes cannot be decoded: {why}"));
        decode::owned(whole).map(|message| vec![message]).map_err(wrong)
    }

    /// Returns the whole message, all of whose pieces have arrived.
    fn join(&mut self) -> Result<Bytes, Status> {
        let Self { pieces, .. } = std::mem::replace(self, Self::new(self.limit));
        let (mut whole, bytes) = (Vec::new(), pieces.iter().map(Bytes::len).sum());
        whole
            .try_reserve_exact(bytes)
            .map_err(|_| Status::resource_exhausted(format!("there is no memory for a message of {bytes} bytes")))?;
        // Each piece is freed as soon as it is copied.
        pieces.into_iter().for_each(|piece| whole.extend_from_slice(&piece));
        Ok(whole.into())
    }
}

#[cfg(test)]
mod tests;
