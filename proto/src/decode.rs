//! Decodes the messages that a coordinator receives. It checks their parts first, and copies small fields, so that they
//! keep no large buffer alive.
//!
//! prost decodes a bytes field as a slice of the message's buffer. A kept field of ten bytes would keep its frame of 4
//! MiB in memory. So a field is copied, unless it is at least half of its buffer.

use std::fmt;

use bytes::{Buf, Bytes};
use prost::Message;

use crate::parts::{self, TooManyParts};

/// Why bytes are not a valid message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// It has too many parts.
    Parts(TooManyParts),
    /// It is not a message of this type.
    Message(prost::DecodeError),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts(error) => error.fmt(f),
            Self::Message(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Decodes a message. Its fields are copies.
///
/// # Errors
/// If the bytes are not a message of this type, or it has too many parts.
pub fn copied<M: Message + Default + 'static>(encoded: &[u8]) -> Result<M, DecodeError> {
    parts::check::<M>(encoded).map_err(DecodeError::Parts)?;
    M::decode(encoded).map_err(DecodeError::Message)
}

/// Decodes a message. A field that is at least half of its bytes shares them; the others are copies.
///
/// # Errors
/// If the bytes are not a message of this type, or it has too many parts.
pub fn owned<M: Message + Default + 'static>(encoded: Bytes) -> Result<M, DecodeError> {
    parts::check::<M>(&encoded).map_err(DecodeError::Parts)?;
    let half = encoded.len() / 2;
    M::decode(Sparing { rest: encoded, half }).map_err(DecodeError::Message)
}

/// A buffer that copies the fields shorter than half of it, and shares the others.
struct Sparing {
    rest: Bytes,
    half: usize,
}

impl Buf for Sparing {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.rest
    }

    fn advance(&mut self, bytes: usize) {
        self.rest.advance(bytes);
    }

    fn copy_to_bytes(&mut self, bytes: usize) -> Bytes {
        let taken = self.rest.split_to(bytes);
        if bytes < self.half { Bytes::copy_from_slice(&taken) } else { taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ClientFrame, ClientMessage, Items, client_message::Body};

    fn frame(sizes: &[usize]) -> ClientFrame {
        let items = |&size: &usize| Items { data: vec![7; size].into(), ..Items::default() };
        let messages: Vec<_> =
            sizes.iter().map(|size| ClientMessage { body: Some(Body::Items(items(size))) }).collect();
        ClientFrame { messages: messages.into(), ..ClientFrame::default() }
    }

    /// Returns for each of the frame's payloads whether it shares the encoded bytes.
    fn shared(decoded: &ClientFrame, encoded: &[u8]) -> Vec<bool> {
        let within = |message: &ClientMessage| match &message.body {
            Some(Body::Items(items)) => encoded.as_ptr_range().contains(&items.data.as_ptr()),
            _ => false,
        };
        decoded.messages.iter().map(within).collect()
    }

    #[test]
    fn kept_fields_hold_at_most_twice_their_size() {
        let check = |sizes: &[usize], expected: &[bool]| {
            let sent = frame(sizes);
            let encoded = Bytes::from(sent.encode_to_vec());
            let found = owned::<ClientFrame>(encoded.clone()).expect("the data is a frame");
            assert_eq!(shared(&found, &encoded), expected);
            assert_eq!(found, sent);
            let found = copied::<ClientFrame>(&encoded).expect("the data is a frame");
            assert_eq!(shared(&found, &encoded), vec![false; sizes.len()]);
            assert_eq!(found, sent);
        };
        check(&[1_000], &[true]);
        check(&[10, 1_000_000, 10], &[false, true, false]);
        check(&[1_000, 1_000, 1_000], &[false, false, false]);
    }

    #[test]
    fn invalid_messages_are_refused() {
        let check = |encoded: &[u8], words: &str| {
            for error in
                [copied::<ClientFrame>(encoded).err(), owned::<ClientFrame>(Bytes::copy_from_slice(encoded)).err()]
            {
                let error = error.expect("the frame is refused").to_string();
                assert!(error.contains("failed to decode") && error.contains(words), "{error}");
            }
        };
        check(&[0xff; 8], "");
        check(&[0x0a, 0x7f, 0], "");
        check(&[0x0a, 0].repeat(2 << 20), "more parts");
    }
}
