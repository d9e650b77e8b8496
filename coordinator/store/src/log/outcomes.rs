//! Joins consecutive results that arrive one by one into one record: a record costs more than a small result.

use bytes::Bytes;
use farpool_proto::v1::journal_record::{Body, ItemsDone};

/// A result of at least this many bytes has a record of its own. Smaller ones are joined up to this size.
const LARGE: usize = 64 << 10;

/// Results of consecutive items that are not in the log yet.
#[derive(Debug)]
pub(super) struct Gathered {
    job: u64,
    first: u64,
    count: u64,
    /// The first batch, as it arrived.
    data: Bytes,
    ends: Bytes,
    /// Whether they count as failed.
    failed: bool,
    /// How many attempts each took; 0: one.
    attempts: u32,
    /// All results, once a second batch was joined.
    joined: Option<(Vec<u8>, Vec<u8>)>,
}

impl Gathered {
    /// Whether one of these is among them.
    pub(super) fn touches(&self, job: u64, first: u64, end: u64) -> bool {
        self.job == job && first < self.first + self.count && self.first < end
    }

    pub(super) fn new(job: u64, first: u64, data: Bytes, ends: Bytes, (failed, attempts): (bool, u32)) -> Self {
        let count = ends.len() as u64 / 4;
        Self { job, first, count, data, ends, failed, attempts, joined: None }
    }

    /// Adds more results, unless they are not consecutive, differ in `alike`, or would be too much for one record.
    pub(super) fn takes(&mut self, (job, first): (u64, u64), data: &[u8], ends: &[u8], alike: (bool, u32)) -> bool {
        let takes = (self.job, self.first + self.count, (self.failed, self.attempts)) == (job, first, alike)
            && self.bytes() + data.len() + ends.len() <= LARGE;
        if takes {
            self.join(data, ends);
        }
        takes
    }

    /// Returns the record of all of them.
    pub(super) fn into_record(self) -> (Body, [Bytes; 2]) {
        let Self { job, first, count, data, ends, failed, attempts, joined } = self;
        let payload = joined.map_or([data, ends], |(data, ends)| [data.into(), ends.into()]);
        (Body::ItemsDone(ItemsDone { job, first, count, failed, attempts }), payload)
    }

    fn bytes(&self) -> usize {
        self.joined.as_ref().map_or(self.data.len() + self.ends.len(), |(data, ends)| data.len() + ends.len())
    }

    fn join(&mut self, data: &[u8], ends: &[u8]) {
        let (all, all_ends) = self.joined.get_or_insert_with(|| (self.data.to_vec(), self.ends.to_vec()));
        let base = all.len() as u32;
        all.extend_from_slice(data);
        for end in ends.chunks_exact(4) {
            let end = u32::from_le_bytes([end[0], end[1], end[2], end[3]]);
            all_ends.extend_from_slice(&(base + end).to_le_bytes());
        }
        self.count += ends.len() as u64 / 4;
    }
}
