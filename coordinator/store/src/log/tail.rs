//! The end of the log: every record gets its location here, before it is written.

use bytes::Bytes;
use farpool_proto::v1::journal_record::{Body, Sealed};

use super::batch::{Batch, Step};
use super::index::Index;
use super::location::RecordLocation;
use super::part::Part;
use super::record::HEADER;
use super::replay::End;
use super::segment::{SEAL_END, SEGMENT_HEADER, seal_end};

#[derive(Debug)]
pub(super) struct Tail {
    /// The size of a full segment.
    segment_size: u64,
    pub(super) end: End,
    /// Records that were not sent to the thread that writes.
    pub(super) batch: Batch,
    /// Number of steps since the journal was opened; most of them are records.
    pub(super) number: u64,
}

impl Tail {
    pub(super) fn new(segment_size: u64, end: End) -> Self {
        Self { segment_size, end, batch: Batch::default(), number: 0 }
    }

    /// Returns the bytes that a record takes.
    pub(super) fn length(body: &Body, payload: &[Bytes]) -> u64 {
        let payload: u64 = payload.iter().map(|part| part.len() as u64).sum();
        HEADER as u64 + body.encoded_len() as u64 + payload
    }

    /// Appends a record, and returns its location. The record fits, and is not too long.
    pub(super) fn append(&mut self, index: &mut Index, body: &Body, payload: &[Bytes]) -> RecordLocation {
        self.make_room(index, Self::length(body, payload));
        let location = self.write(body, payload);
        index.apply(body, location);
        self.number += 1;
        location
    }

    /// Has a record copied to the end of the log.
    pub(super) fn copy(&mut self, index: &mut Index, part: Part, from: RecordLocation) -> RecordLocation {
        self.make_room(index, from.bytes());
        let to = RecordLocation { segment: self.end.segment, offset: self.end.offset as u32, length: from.length };
        self.batch.copy(from, to);
        self.end.offset = to.end();
        index.copied(part, to);
        self.number += 1;
        to
    }

    /// Has a segment removed when everything before is durable; a damaged one is renamed instead.
    pub(super) fn remove(&mut self, segment: u32, damaged: bool) {
        self.batch.steps.push(if damaged { Step::SetAside(segment) } else { Step::Remove(segment) });
        self.number += 1;
    }

    /// Returns the segment that is being written; 0: none is.
    pub(super) fn active(&self) -> u32 {
        if self.end.closed { 0 } else { self.end.segment }
    }

    fn write(&mut self, body: &Body, payload: &[Bytes]) -> RecordLocation {
        let location = self.batch.record(self.end.segment, self.end.offset as u32, body, payload);
        self.end.offset = location.end();
        location
    }

    /// Begins another segment, if this one is full or the record would not fit.
    fn make_room(&mut self, index: &mut Index, length: u64) {
        let End { segment, offset, closed } = self.end;
        if segment != 0 && !closed && offset < self.segment_size && offset + length <= u64::from(u32::MAX) {
            return;
        }
        if segment != 0 && !closed {
            self.seal(index);
        }
        self.end = End { segment: segment + 1, offset: SEGMENT_HEADER as u64, closed: false };
        self.batch.steps.push(Step::Create(self.end.segment));
        index.segments.begin(self.end.segment);
    }

    fn seal(&mut self, index: &mut Index) {
        let full = &index.segments.all[&self.end.segment];
        let (jobs, forgotten) = full.jobs.iter().partition(|job| index.jobs.contains_key(job));
        let seal = Sealed { jobs, forgotten, pools: full.pools.iter().copied().collect() };
        let seal = Body::Sealed(Box::new(seal));
        let length = HEADER + seal.encoded_len() + SEAL_END;
        // Behind a record of gigabytes there may be no room: then the segment has no seal.
        if self.end.offset + length as u64 <= u64::from(u32::MAX) {
            let location = self.write(&seal, &[seal_end(length as u32)]);
            index.apply(&seal, location);
        }
    }
}
