//! How a coordinator decodes what it is sent: with a look at the parts first, and so that what is kept of a message does not
//! keep much more alive.
//!
//! A field of bytes is usually decoded as a part of the buffer that the message came in. Ten bytes that are kept would keep the
//! 4 MiB of their frame. So fields are copied, unless they are most of what they came in.

use std::fmt;

use bytes::{Buf, Bytes};
use prost::Message;

use crate::parts::{self, TooManyParts};

/// Why something is no message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DecodeError {
    /// It has more parts than it may.
    Parts(TooManyParts),
    /// It is none of this type.
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

/// The message in these bytes, of which its fields are copies.
///
/// # Errors
/// If it is none, or has too many parts.
pub fn copied<M: Message + Default + 'static>(encoded: &[u8]) -> Result<M, DecodeError> {
    parts::check::<M>(encoded).map_err(DecodeError::Parts)?;
    M::decode(encoded).map_err(DecodeError::Message)
}

/// The message in these bytes, which are its own: a field that is most of it shares them, the others are copies.
///
/// # Errors
/// If it is none, or has too many parts.
pub fn owned<M: Message + Default + 'static>(encoded: Bytes) -> Result<M, DecodeError> {
    parts::check::<M>(&encoded).map_err(DecodeError::Parts)?;
    let half = encoded.len() / 2;
    M::decode(Sparing { rest: encoded, half }).map_err(DecodeError::Message)
}

/// Hands out copies of what is less than half of it.
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

    /// Which of the frame's payloads lie in the bytes that it came in.
    fn shared(decoded: &ClientFrame, encoded: &[u8]) -> Vec<bool> {
        let within = |message: &ClientMessage| match &message.body {
            Some(Body::Items(items)) => encoded.as_ptr_range().contains(&items.data.as_ptr()),
            _ => false,
        };
        decoded.messages.iter().map(within).collect()
    }

    #[test]
    fn what_is_kept_keeps_no_more_than_twice_as_much() {
        let check = |sizes: &[usize], expected: &[bool]| {
            let sent = frame(sizes);
            let encoded = Bytes::from(sent.encode_to_vec());
            let found = owned::<ClientFrame>(encoded.clone()).expect("it is a frame");
            assert_eq!(shared(&found, &encoded), expected);
            assert_eq!(found, sent);
            let found = copied::<ClientFrame>(&encoded).expect("it is a frame");
            assert_eq!(shared(&found, &encoded), vec![false; sizes.len()]);
            assert_eq!(found, sent);
        };
        check(&[1_000], &[true]);
        check(&[10, 1_000_000, 10], &[false, true, false]);
        check(&[1_000, 1_000, 1_000], &[false, false, false]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let check = |encoded: &[u8], words: &str| {
            for error in
                [copied::<ClientFrame>(encoded).err(), owned::<ClientFrame>(Bytes::copy_from_slice(encoded)).err()]
            {
                let error = error.expect("it is refused").to_string();
                assert!(error.contains("failed to decode") && error.contains(words), "{error}");
            }
        };
        check(&[0xff; 8], "");
        check(&[0x0a, 0x7f, 0], "");
        check(&[0x0a, 0].repeat(2 << 20), "more parts");
    }
}
