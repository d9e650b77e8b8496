//! Estimates the memory that a message needs in addition to its bytes, before it is decoded.
//!
//! A part of two bytes on the wire may take a hundred bytes in memory: a frame of 4 MiB with empty messages took 200
//! MiB. So the parts of each message to the coordinator are counted first. This looks only at the few repeated fields,
//! and skips payloads by their lengths.

use std::any::TypeId;
use std::fmt;

use bytes::Bytes;

use crate::v1::{AgentEvent, AgentFrame, ClientFrame, ClientMessage, HeldChunk, HeldPool, Label, Program, Variable};

/// The most bytes that the parts of one message may take: enough for the hello of an agent that holds the most chunks
/// allowed.
const MOST: u64 = 8 << 20;
/// The bytes that each message in a frame counts for, so that a frame has at most about 10,000. Senders put 8192 in.
const MESSAGE: u64 = MOST / 10_000;
/// The least bytes that the texts of a part allocate.
const TEXTS: u64 = 64;

/// The error for a message with too many parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyParts;

impl fmt::Display for TooManyParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to decode: more parts than a message may have")
    }
}

impl std::error::Error for TooManyParts {}

/// The fields of a message that are counted.
struct Shape(&'static [Field]);

struct Field {
    number: u64,
    /// The memory of each one in addition to its bytes; for packed numbers, that of each byte.
    each: u64,
    kind: Kind,
}

enum Kind {
    Message(&'static Shape),
    Bytes,
    /// Packed numbers: each byte may be one.
    Packed,
}

const fn message(number: u64, each: u64, shape: &'static Shape) -> Field {
    Field { number, each, kind: Kind::Message(shape) }
}

const fn bytes(number: u64, each: u64) -> Field {
    Field { number, each, kind: Kind::Bytes }
}

const LABEL: u64 = size_of::<Label>() as u64 + TEXTS;

static PROGRAM: Shape = Shape(&[bytes(3, size_of::<Bytes>() as u64), bytes(4, size_of::<Variable>() as u64)]);
static OPEN_POOL: Shape = Shape(&[bytes(5, LABEL), bytes(9, size_of::<Bytes>() as u64)]);
static OPEN_JOB: Shape = Shape(&[bytes(9, LABEL)]);
static CLIENT_MESSAGE: Shape = Shape(&[message(1, 0, &OPEN_POOL), message(2, 0, &OPEN_JOB)]);
static CLIENT_FRAME: Shape = Shape(&[message(1, MESSAGE, &CLIENT_MESSAGE)]);

static HELD_CHUNK: Shape = Shape(&[Field { number: 5, each: size_of::<u64>() as u64, kind: Kind::Packed }]);
static HELD_POOL: Shape = Shape(&[message(4, size_of::<HeldChunk>() as u64, &HELD_CHUNK)]);
static HELLO: Shape = Shape(&[bytes(5, LABEL), message(6, size_of::<HeldPool>() as u64, &HELD_POOL)]);
static AGENT_EVENT: Shape = Shape(&[message(1, 0, &HELLO)]);
static AGENT_FRAME: Shape = Shape(&[message(1, MESSAGE, &AGENT_EVENT)]);

/// Checks the parts of an encoded message. Types that a coordinator does not receive are not checked.
///
/// # Errors
/// If there are too many of them. Invalid messages are left to the decoder.
#[inline]
pub fn check<M: 'static>(encoded: &[u8]) -> Result<(), TooManyParts> {
    let is = |other: TypeId| TypeId::of::<M>() == other;
    let shape = match () {
        () if is(TypeId::of::<ClientFrame>()) => &CLIENT_FRAME,
        () if is(TypeId::of::<AgentFrame>()) => &AGENT_FRAME,
        () if is(TypeId::of::<ClientMessage>()) => &CLIENT_MESSAGE,
        () if is(TypeId::of::<AgentEvent>()) => &AGENT_EVENT,
        () if is(TypeId::of::<Program>()) => &PROGRAM,
        () => return Ok(()),
    };
    let mut left = MOST;
    count(encoded, shape, &mut left).ok_or(TooManyParts)
}

/// Subtracts the memory of the parts from `left`; `None` if `left` is too small.
fn count(mut encoded: &[u8], shape: &Shape, left: &mut u64) -> Option<()> {
    while let Some((number, data)) = next(&mut encoded) {
        let Some(field) = shape.0.iter().find(|field| field.number == number) else { continue };
        let times = if matches!(field.kind, Kind::Packed) { data.len() as u64 } else { 1 };
        *left = left.checked_sub(times * field.each)?;
        if let Kind::Message(shape) = &field.kind {
            count(data, shape, left)?;
        }
    }
    Some(())
}

/// Returns the number of the next field and its bytes (none for a field without a length); `None` if there is no next
/// field, or it cannot be decoded.
#[inline]
fn next<'e>(encoded: &mut &'e [u8]) -> Option<(u64, &'e [u8])> {
    let key = varint(encoded)?;
    let skipped = match key & 7 {
        0 => varint(encoded).map(|_| 0)?,
        1 => 8,
        2 => usize::try_from(varint(encoded)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (data, rest) = encoded.split_at_checked(skipped)?;
    *encoded = rest;
    Some((key >> 3, data))
}

#[inline]
fn varint(encoded: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, &byte) in encoded.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte < 0x80 {
            *encoded = &encoded[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::v1::{AgentHello, Items, OpenJob, OpenPool, agent_event, client_message};

    fn client(body: client_message::Body) -> ClientMessage {
        ClientMessage { body: Some(body) }
    }

    fn frame(messages: Vec<ClientMessage>) -> Vec<u8> {
        ClientFrame { messages: messages.into(), ..ClientFrame::default() }.encode_to_vec()
    }

    fn hello(hello: AgentHello) -> Vec<u8> {
        let messages = vec![AgentEvent { body: Some(agent_event::Body::Hello(Box::new(hello))) }];
        AgentFrame { messages: messages.into(), ..AgentFrame::default() }.encode_to_vec()
    }

    #[test]
    fn honest_messages_pass() {
        // As many as fit into a frame.
        let items = Items { job: 7, first: 3, data: vec![1].into(), ends: vec![1, 0, 0, 0].into() };
        let messages = vec![client(client_message::Body::Items(items)); 8192];
        assert_eq!(check::<ClientFrame>(&frame(messages)), Ok(()));
        // As many chunks as an agent may hold.
        let chunk = HeldChunk { chunk: u64::MAX, job: 9, attempt: 1, first: 1 << 20, runs: vec![1 << 20, 3] };
        let held = vec![HeldPool { pool: 1 << 63, chunks: vec![chunk; 65_536], ..HeldPool::default() }];
        assert_eq!(check::<AgentFrame>(&hello(AgentHello { held, ..AgentHello::default() })), Ok(()));
        let large = Items { data: vec![0; 32 << 20].into(), ..Items::default() };
        assert_eq!(check::<ClientMessage>(&client(client_message::Body::Items(large)).encode_to_vec()), Ok(()));
        assert_eq!(check::<ClientFrame>(b"\xff\xff\xff"), Ok(()));
        assert_eq!(check::<Items>(&[0x0a, 0x00].repeat(10 << 20)), Ok(()));
    }

    #[test]
    fn tiny_parts_without_end_are_refused() {
        let refused = Err(TooManyParts);
        assert_eq!(check::<ClientFrame>(&[0x0a, 0x00].repeat(2 << 20)), refused);
        assert_eq!(check::<AgentFrame>(&[0x0a, 0x00].repeat(2 << 20)), refused);
        let require = vec![Label::default(); 1 << 20];
        let job = OpenJob { require: require.clone(), ..OpenJob::default() };
        assert_eq!(check::<ClientFrame>(&frame(vec![client(client_message::Body::OpenJob(job.into()))])), refused);
        let program = Program { arguments: vec![Bytes::new(); 1 << 20], ..Program::default() };
        assert_eq!(check::<Program>(&program.encode_to_vec()), refused);
        let pool = OpenPool { agents: vec![Bytes::new(); 1 << 20], ..OpenPool::default() };
        assert_eq!(check::<ClientFrame>(&frame(vec![client(client_message::Body::OpenPool(pool.into()))])), refused);
        assert_eq!(check::<AgentFrame>(&hello(AgentHello { labels: require, ..AgentHello::default() })), refused);
        let held = vec![HeldPool::default(); 1 << 20];
        assert_eq!(check::<AgentFrame>(&hello(AgentHello { held, ..AgentHello::default() })), refused);
        let runs = HeldChunk { runs: vec![1; 2 << 20], ..HeldChunk::default() };
        let held = vec![HeldPool { chunks: vec![runs], ..HeldPool::default() }];
        assert_eq!(check::<AgentFrame>(&hello(AgentHello { held, ..AgentHello::default() })), refused);
    }
}
