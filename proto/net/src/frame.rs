//! Messages in frames: many small ones in one, a large one in pieces over several.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use farpool_proto::v1::{
    AgentCommand, AgentEvent, AgentFrame, ClientEvent, ClientFrame, ClientMessage, CommandFrame, EventFrame, Piece,
};
use prost::Message;
use tonic::Status;

/// Messages are gathered up to about this size: enough that what a frame costs does not count any more.
const FRAME_BYTES: usize = 256 << 10;
/// Messages above this size travel in pieces: then nobody has to take a larger frame than this, and a bit, at once.
const WHOLE_BYTES: usize = 2 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// A message of a session, and the frames that it travels in.
pub trait SessionMessage: Message + Default + 'static {
    /// Its frame.
    type Frame: Message + Default + 'static;

    /// A frame with whole messages.
    fn frame(messages: Vec<Self>) -> Self::Frame;

    /// A frame with a piece of a message.
    fn piece(piece: Piece) -> Self::Frame;

    /// What is in a frame.
    fn open(frame: Self::Frame) -> (Vec<Self>, Option<Piece>);
}

macro_rules! session_messages {
    ($($message:ident in $frame:ident,)*) => {$(
        impl SessionMessage for $message {
            type Frame = $frame;

            fn frame(messages: Vec<Self>) -> $frame {
                $frame { messages, ..$frame::default() }
            }

            fn piece(piece: Piece) -> $frame {
                $frame { piece: Some(piece), ..$frame::default() }
            }

            fn open(frame: $frame) -> (Vec<Self>, Option<Piece>) {
                (frame.messages, frame.piece)
            }
        }
    )*};
}

session_messages! {
    ClientMessage in ClientFrame,
    ClientEvent in EventFrame,
    AgentEvent in AgentFrame,
    AgentCommand in CommandFrame,
}

/// Puts messages into frames.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    /// What is left of a message that is sent in pieces, and the size of the whole.
    rest: Bytes,
    total: u64,
}

impl Packer {
    /// The next frame, and how many bytes of messages are in it: of what is left of a large message, or of the messages
    /// in the queue, each of which comes with its encoded size. There must be something.
    pub(crate) fn pack<M: SessionMessage>(&mut self, queue: &mut VecDeque<(M, usize)>) -> (M::Frame, usize) {
        if self.rest.is_empty() {
            if queue.front().is_none_or(|(_, size)| *size <= WHOLE_BYTES) {
                return gather(queue);
            }
            self.rest = queue.pop_front().map(|(message, _)| message.encode_to_vec().into()).unwrap_or_default();
            self.total = self.rest.len() as u64;
        }
        let data = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        let bytes = data.len();
        (M::piece(Piece { total: self.total, data }), bytes)
    }

    /// Whether there is something left of a message that was taken from the queue.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }
}

/// A frame with as many messages as fit, and at least one.
fn gather<M: SessionMessage>(queue: &mut VecDeque<(M, usize)>) -> (M::Frame, usize) {
    let (mut count, mut bytes) = (0, 0);
    for (_, size) in queue.iter() {
        if count > 0 && bytes + size > FRAME_BYTES {
            break;
        }
        (count, bytes) = (count + 1, bytes + size);
    }
    (M::frame(queue.drain(..count).map(|(message, _)| message).collect()), bytes)
}

/// Takes messages out of frames. What a peer sends may be anything.
#[derive(Debug)]
pub(crate) struct Unpacker {
    /// The largest message that is taken, in bytes.
    limit: u64,
    total: u64,
    pieces: BytesMut,
}

impl Unpacker {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, total: 0, pieces: BytesMut::new() }
    }

    /// The messages that a frame completes, in order; none as long as a large one is not whole.
    pub(crate) fn unpack<M: SessionMessage>(&mut self, frame: M::Frame) -> Result<Vec<M>, Status> {
        let (messages, piece) = M::open(frame);
        match piece {
            None if self.total > 0 => Err(Status::invalid_argument("messages came between the pieces of another one")),
            None => Ok(messages),
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
        if self.total == 0 {
            // Memory that is never written to costs nothing, so a peer that lies about the size gains nothing.
            self.pieces.reserve(total as usize);
        }
        self.total = total;
        self.pieces.extend_from_slice(&data);
        if (self.pieces.len() as u64) < total {
            return Ok(Vec::new());
        }
        self.total = 0;
        let whole: Bytes = std::mem::take(&mut self.pieces).freeze();
        debug_assert_eq!(whole.remaining() as u64, total);
        let message = M::decode(whole);
        message
            .map(|message| vec![message])
            .map_err(|error| Status::invalid_argument(format!("a message of {total} bytes cannot be decoded: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use farpool_proto::v1::{Items, client_message::Body};
    use proptest::prelude::*;

    use super::*;

    fn message(bytes: usize) -> ClientMessage {
        let items = Items { job: bytes as u64, first: 3, data: vec![7; bytes].into(), ends: Bytes::new() };
        ClientMessage { body: Some(Body::Items(items)) }
    }

    fn queue(messages: Vec<ClientMessage>) -> VecDeque<(ClientMessage, usize)> {
        messages
            .into_iter()
            .map(|message| (message.encoded_len(), message))
            .map(|(size, message)| (message, size))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_packed_is_unpacked(sizes in prop::collection::vec(
            prop_oneof![0..200usize, 100_000..400_000usize, (2 << 20) - 100..(2 << 20) + 100usize, 3_000_000..5_000_000usize],
            0..12,
        )) {
            let sent: Vec<_> = sizes.into_iter().map(message).collect();
            let mut queue = queue(sent.clone());
            let mut bytes: usize = queue.iter().map(|(_, size)| size).sum();
            let (mut packer, mut unpacker, mut received) = (Packer::default(), Unpacker::new(8 << 20), Vec::new());
            while packer.has_rest() || !queue.is_empty() {
                let (frame, packed) = packer.pack(&mut queue);
                bytes -= packed;
                prop_assert!(frame.encoded_len() < WHOLE_BYTES + 100);
                received.extend(unpacker.unpack::<ClientMessage>(frame).expect("it was packed"));
            }
            prop_assert_eq!(received.len(), sent.len());
            prop_assert!(received == sent);
            prop_assert_eq!((bytes, unpacker.held()), (0, 0));
        }
    }

    #[test]
    fn small_messages_share_frames() {
        let mut queue = queue((0..1000).map(|_| message(100)).collect());
        let (frame, _): (ClientFrame, usize) = Packer::default().pack(&mut queue);
        assert_eq!((frame.messages.len(), queue.len()), (1000, 0));
    }

    #[test]
    fn pieces_that_lie_are_refused() {
        let piece = |total, bytes: usize| ClientMessage::piece(Piece { total, data: vec![0xff; bytes].into() });
        let mut both = piece(10, 5);
        both.messages.push(message(1));
        let check = |frames: Vec<ClientFrame>, words: &str| {
            let mut unpacker = Unpacker::new(1000);
            let last = frames.into_iter().map(|frame| unpacker.unpack::<ClientMessage>(frame)).last();
            let error = last.expect("there is a frame").expect_err("it is refused");
            assert!(error.message().contains(words), "{error}");
        };
        check(vec![piece(1001, 5)], "the limit is 1000");
        check(vec![piece(u64::MAX, 5)], "the limit is 1000");
        check(vec![piece(10, 11)], "11 bytes of a message of which 10 are missing");
        check(vec![piece(10, 5), piece(10, 6)], "of which 5 are missing");
        check(vec![piece(10, 5), piece(11, 6)], "of 11 bytes came among those of one of 10");
        check(vec![piece(10, 0)], "0 bytes");
        check(vec![piece(0, 0)], "0 bytes");
        check(vec![piece(0, 1)], "1 bytes");
        check(vec![piece(10, 5), ClientMessage::frame(vec![message(1)])], "between the pieces");
        check(vec![both], "messages and a piece");
        check(vec![piece(10, 10)], "cannot be decoded");
    }
}
