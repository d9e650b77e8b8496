//! The format of a record in its segment: a header, a head (an encoded [`JournalRecord`]), and the payload, which is
//! not encoded again.
//!
//! ```text
//! checksum u64 | length u32: head and payload | head u32: of the head alone | head | payload       all little-endian
//! ```
//!
//! The checksum is the first 8 bytes of the record's BLAKE3 hash. For the hash, the record's location (segment and
//! offset) takes the checksum's place. So a record that is not where it was written is invalid, for example in a
//! misnamed file or within an item.

use farpool_proto::v1::JournalRecord;
use farpool_proto::v1::journal_record::Body;
use prost::Message;

use super::location::RecordLocation;

/// Bytes before the head.
pub(super) const HEADER: usize = 16;

/// The longest head and payload: two of the largest messages that an agent may send, less what may precede them.
pub(super) const MAX_LENGTH: u64 = u32::MAX as u64 - (64 << 10);

/// The number of bytes after the checksum, and how many of them are the head.
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

/// Appends header and head to `to`; the payload must follow. The checksum's field has the record's location, as the
/// checksum requires.
pub(super) fn begin(to: &mut Vec<u8>, segment: u32, offset: u32, body: &Body, payload: u64) -> u32 {
    let start = to.len();
    to.extend([0; HEADER]);
    // A JournalRecord has no other field.
    body.encode(to);
    let head = to.len() - start - HEADER;
    let all = u32::try_from(head as u64 + payload).expect("the record is too long");
    for (at, word) in [segment, offset, all, head as u32].into_iter().enumerate() {
        to[start + 4 * at..][..4].copy_from_slice(&word.to_le_bytes());
    }
    all + HEADER as u32
}

/// The checksum of a record, fed piece by piece.
pub(super) struct Checksum {
    hasher: blake3::Hasher,
}

impl Checksum {
    /// Begins the checksum of the record with this header at this location.
    pub(super) fn new(segment: u32, offset: u32, header: &[u8; HEADER]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header_at(segment, offset, header));
        Self { hasher }
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
    }

    pub(super) fn end(self) -> [u8; 8] {
        first_8_bytes(&self.hasher.finalize())
    }
}

/// Returns the checksum of a whole record, whose header has its location in the checksum's place.
pub(super) fn checksum(placed: &[u8]) -> [u8; 8] {
    first_8_bytes(&blake3::hash(placed))
}

/// Returns the header with the record's location in the checksum's place.
pub(super) fn header_at(segment: u32, offset: u32, header: &[u8; HEADER]) -> [u8; HEADER] {
    let mut placed = *header;
    placed[..4].copy_from_slice(&segment.to_le_bytes());
    placed[4..8].copy_from_slice(&offset.to_le_bytes());
    placed
}

fn first_8_bytes(hash: &blake3::Hash) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&hash.as_bytes()[..8]);
    half
}

/// Decodes the head, and checks that the payload fits it. Otherwise the record is invalid.
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

/// Returns job, first index and count of a record with items.
pub(super) fn run(body: &Body) -> Option<(u64, u64, u64)> {
    match body {
        Body::Items(run) => Some((run.job, run.first, run.count)),
        Body::ItemsDone(run) => Some((run.job, run.first, run.count)),
        Body::ItemsFailed(run) => Some((run.job, run.first, run.count)),
        _ => None,
    }
}

/// Whether the end of a record at this location fits in 32 bits.
pub(super) fn fits(location: RecordLocation) -> bool {
    location.end() <= u64::from(u32::MAX)
}
