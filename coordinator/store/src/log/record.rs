//! How a record lies in its segment: a header, a head (an encoded [`JournalRecord`]), and the payload, which is not
//! encoded again.
//!
//! ```text
//! checksum u64 | length u32: head and payload | head u32: of the head alone | head | payload       all little-endian
//! ```
//!
//! The checksum is the first half of a half of BLAKE3, over where the record is (segment and offset, in place of the checksum) and
//! all that follows. So a record that lies somewhere else than where it was written is none, be it in a file that was mixed
//! up or within somebody's items.

use farpool_proto::v1::JournalRecord;
use farpool_proto::v1::journal_record::Body;
use prost::Message;

use super::place::Place;

/// Bytes in front of the head.
pub(super) const HEADER: usize = 16;

/// The longest head and payload: two of the largest messages that an agent may send, less what may lie in front.
pub(super) const MAX_LENGTH: u64 = u32::MAX as u64 - (64 << 10);

/// Of the bytes behind the checksum: how many there are, and how many of them are the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) all: u32,
    pub(super) head: u32,
}

impl Lengths {
    pub(super) fn of(header: &[u8; HEADER]) -> Self {
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Self { all: word(8), head: word(12) }
    }

    pub(super) fn payload(self) -> u32 {
        self.all - self.head
    }
}

/// Puts header and head behind what is in `to`; the payload has to follow. In the place of the checksum is where the
/// record will be, as the checksum wants it.
pub(super) fn begin(to: &mut Vec<u8>, segment: u32, offset: u32, body: &Body, payload: u64) -> u32 {
    let start = to.len();
    to.extend([0; HEADER]);
    // Which is all that there is in a JournalRecord.
    body.encode(to);
    let head = to.len() - start - HEADER;
    let all = u32::try_from(head as u64 + payload).expect("what is too long was refused");
    for (at, word) in [segment, offset, all, head as u32].into_iter().enumerate() {
        to[start + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
    }
    all + HEADER as u32
}

/// The checksum of a record, its bytes given piece by piece.
pub(super) struct Checksum {
    hasher: blake3::Hasher,
}

impl Checksum {
    /// Of the record with this header, at this place.
    pub(super) fn new(segment: u32, offset: u32, header: &[u8; HEADER]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&placed(segment, offset, header));
        Self { hasher }
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
    }

    pub(super) fn end(self) -> [u8; 8] {
        first_half(&self.hasher.finalize())
    }
}

/// The checksum of a record whose header says where it is, all of it in one piece.
pub(super) fn checksum(placed: &[u8]) -> [u8; 8] {
    first_half(&blake3::hash(placed))
}

/// A header with the place for which the checksum is to be.
pub(super) fn placed(segment: u32, offset: u32, header: &[u8; HEADER]) -> [u8; HEADER] {
    let mut placed = *header;
    placed[..4].copy_from_slice(&segment.to_le_bytes());
    placed[4..8].copy_from_slice(&offset.to_le_bytes());
    placed
}

fn first_half(hash: &blake3::Hash) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&hash.as_bytes()[..8]);
    half
}

/// What the head says, and whether the payload can be what it says: it is none of ours otherwise.
pub(super) fn decode(head: &[u8], payload: u32) -> Result<Body, String> {
    let record = JournalRecord::decode(head).map_err(|error| format!("its head cannot be read: {error}"))?;
    let body = record.body.ok_or("it is of a kind that this version does not know")?;
    if let Some((_, first, count)) = run(&body) {
        let too_many = !matches!(body, Body::ItemsFailed(_)) && count > u64::from(payload) / 4;
        if count == 0 || first.checked_add(count).is_none() || too_many {
            return Err(format!("{count} items from {first} on cannot be in {payload} bytes"));
        }
    }
    Ok(body)
}

/// Job, first index and count of a record that is of items.
pub(super) fn run(body: &Body) -> Option<(u64, u64, u64)> {
    match body {
        Body::Items(run) => Some((run.job, run.first, run.count)),
        Body::ItemsDone(run) => Some((run.job, run.first, run.count)),
        Body::ItemsFailed(run) => Some((run.job, run.first, run.count)),
        _ => None,
    }
}

/// How long a record at this place may be at most, so that places can be told in 32 bits.
pub(super) fn fits(place: Place) -> bool {
    place.end() <= u64::from(u32::MAX)
}
