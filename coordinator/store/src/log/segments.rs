//! The contents of the segments: how much is still needed, and by which jobs.

use std::collections::{BTreeMap, BTreeSet};

use super::location::RecordLocation;
use super::segment::SEGMENT_HEADER;

/// All segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) all: BTreeMap<u32, Segment>,
    /// Bytes of all of them.
    pub(super) bytes: u64,
    /// Bytes of the needed records.
    pub(super) live: u64,
    /// Number of the needed records, each of which has an entry in the index.
    pub(super) entries: u64,
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) live: u64,
    /// The jobs with records in it, needed or not: what these state must be written again before the segment goes.
    pub(super) jobs: BTreeSet<u64>,
    pub(super) pools: BTreeSet<u64>,
    /// Whether something in it cannot be read, so that it cannot be emptied.
    pub(super) stuck: bool,
    /// Whether some of its bytes are not whole records: it is emptied first, and set aside instead of removed.
    pub(super) damaged: bool,
}

impl Segments {
    pub(super) fn begin(&mut self, segment: u32) {
        let bytes = SEGMENT_HEADER as u64;
        let before = self.all.insert(segment, Segment { bytes, ..Segment::default() });
        assert!(before.is_none(), "no number is used twice");
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, segment: u32) -> Segment {
        let removed = self.all.remove(&segment).expect("the segment has no entry");
        self.bytes -= removed.bytes;
        self.live -= removed.live;
        removed
    }

    /// It is damaged, and its file has this length.
    pub(super) fn mark_damaged(&mut self, segment: u32, length: u64) {
        let damaged = self.all.get_mut(&segment).expect("the segment has no entry");
        damaged.damaged = true;
        let unread = length.saturating_sub(damaged.bytes);
        damaged.bytes += unread;
        self.bytes += unread;
    }

    /// A record was written.
    pub(super) fn written(&mut self, location: RecordLocation) {
        self.at(location).bytes += location.bytes();
        self.bytes += location.bytes();
    }

    /// A record has an entry in the index from now on.
    pub(super) fn keep(&mut self, location: RecordLocation) {
        self.at(location).live += location.bytes();
        self.live += location.bytes();
        self.entries += 1;
    }

    /// A record no longer has an entry.
    pub(super) fn release(&mut self, location: RecordLocation) {
        self.at(location).live -= location.bytes();
        self.live -= location.bytes();
        self.entries -= 1;
    }

    /// Notes a record of this job. Returns whether it is the segment's first.
    pub(super) fn note_job(&mut self, location: RecordLocation, job: u64) -> bool {
        self.at(location).jobs.insert(job)
    }

    fn at(&mut self, location: RecordLocation) -> &mut Segment {
        self.all.get_mut(&location.segment).expect("the segment has no entry")
    }
}
