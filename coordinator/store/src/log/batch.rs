//! The next work for the journal's thread: the records since the last flush, in the order of the log.

use std::io::IoSlice;

use bytes::Bytes;
use farpool_proto::v1::JournalRecord;
use farpool_proto::v1::journal_record::Body;
use prost::Message;

use super::location::RecordLocation;
use super::record::{Checksum, HEADER, Lengths, begin, checksum};

/// Payloads up to this size are copied, which is cheaper than to refer to them.
const SMALL: usize = 4 << 10;

/// Steps in order. Segments are removed when all the rest is durable.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<Step>,
    /// Bytes to write.
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) enum Step {
    Create(u32),
    Write(Chunk),
    /// A filler whose bytes are not written.
    Hole(RecordLocation),
    Copy {
        from: RecordLocation,
        to: RecordLocation,
    },
    Remove(u32),
    /// Removes a segment from the journal, but keeps its file under another name.
    SetAside(u32),
}

/// Consecutive records.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u64,
    /// Everything but large payloads.
    small: Vec<u8>,
    /// The start of each record in `small`.
    starts: Vec<usize>,
    /// Payloads, and the positions in `small` where they belong; sorted.
    large: Vec<(usize, Bytes)>,
}

impl Batch {
    /// Adds a record, and returns its location. [`seal`](Self::seal) adds its checksum.
    pub(super) fn record(&mut self, segment: u32, offset: u32, body: &Body, payload: &[Bytes]) -> RecordLocation {
        let behind =
            |chunk: &Chunk| chunk.segment == segment && u64::from(chunk.offset) + chunk.length == offset.into();
        if !matches!(self.steps.last(), Some(Step::Write(chunk)) if behind(chunk)) {
            let (small, starts, large) = (Vec::new(), Vec::new(), Vec::new());
            self.steps.push(Step::Write(Chunk { segment, offset, length: 0, small, starts, large }));
        }
        let Some(Step::Write(chunk)) = self.steps.last_mut() else { unreachable!("the last step is a write") };
        let length = chunk.record(segment, offset, body, payload);
        self.bytes += u64::from(length);
        RecordLocation { segment, offset, length }
    }

    /// Fills in the checksums; once.
    pub(super) fn seal(&mut self) {
        for step in &mut self.steps {
            if let Step::Write(chunk) = step {
                chunk.seal();
            }
        }
    }

    pub(super) fn copy(&mut self, from: RecordLocation, to: RecordLocation) {
        self.bytes += to.bytes();
        self.steps.push(Step::Copy { from, to });
    }
}

/// Adds a hole at the end, joining it with a hole right before it.
pub(super) fn add_hole(steps: &mut Vec<Step>, location: RecordLocation) {
    match steps.last_mut() {
        Some(Step::Hole(before))
            if before.segment == location.segment && before.end() == u64::from(location.offset) =>
        {
            before.length += location.length;
        }
        _ => steps.push(Step::Hole(location)),
    }
}

/// Returns the body of a record from all of its bytes but large payloads.
fn body(record: &[u8]) -> Option<Body> {
    let head = Lengths::of(record.first_chunk()?).head as usize;
    JournalRecord::decode(record.get(HEADER..HEADER + head)?).ok()?.body
}

impl Chunk {
    fn record(&mut self, segment: u32, offset: u32, body: &Body, payload: &[Bytes]) -> u32 {
        self.starts.push(self.small.len());
        let bytes = payload.iter().map(|part| part.len() as u64).sum();
        let length = begin(&mut self.small, segment, offset, body, bytes);
        for part in payload {
            if part.len() <= SMALL {
                self.small.extend_from_slice(part);
            } else {
                self.large.push((self.small.len(), part.clone()));
            }
        }
        self.length += u64::from(length);
        length
    }

    fn seal(&mut self) {
        let mut large = self.large.iter().peekable();
        for (at, &start) in self.starts.iter().enumerate() {
            let end = self.starts.get(at + 1).copied().unwrap_or(self.small.len());
            // A record begins with its header, so what is between its start and its end is its own.
            let sum = if large.peek().is_some_and(|(at, _)| *at <= end) {
                let header: &[u8; HEADER] =
                    self.small[start..start + HEADER].try_into().expect("the header has a wrong length");
                let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
                let mut sum = Checksum::new(word(0), word(4), header);
                let mut from = start + HEADER;
                while let Some((at, payload)) = large.next_if(|(at, _)| *at <= end) {
                    sum.add(&self.small[from..*at]);
                    sum.add(payload);
                    from = *at;
                }
                sum.add(&self.small[from..end]);
                sum.end()
            } else {
                checksum(&self.small[start..end])
            };
            self.small[start..start + 8].copy_from_slice(&sum);
        }
    }

    /// Replaces a record without large payload by a filler. Returns whether the record is one of these.
    pub(super) fn leave_out(&mut self, location: RecordLocation, filler: &[u8]) -> bool {
        if self.segment != location.segment {
            return false;
        }
        let (mut large, mut offset) = (self.large.iter().peekable(), u64::from(self.offset));
        let begins = |start: &usize| {
            while let Some((_, payload)) = large.next_if(|(at, _)| at <= start) {
                offset += payload.len() as u64;
            }
            offset + *start as u64 == u64::from(location.offset)
        };
        let Some(start) = self.starts.iter().copied().find(begins) else { return false };
        self.small[start..start + filler.len()].copy_from_slice(filler);
        true
    }

    /// Returns the records without the unwanted ones, which become holes. They must not have been written, or must have
    /// been cut off.
    pub(super) fn without(self, mut is_unwanted: impl FnMut(&Body) -> bool) -> Vec<Step> {
        let Self { segment, small, starts, large, .. } = self;
        let mut steps = Vec::new();
        let (mut large, mut offset) = (large.into_iter().peekable(), self.offset);
        for (at, &start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).copied().unwrap_or(small.len());
            let mut own = Vec::new();
            while let Some(payload) = large.next_if(|(at, _)| *at <= end) {
                own.push(payload);
            }
            let length = (end - start) as u64 + own.iter().map(|(_, payload)| payload.len() as u64).sum::<u64>();
            let location = RecordLocation { segment, offset, length: length as u32 };
            offset += length as u32;
            let record = &small[start..end];
            match body(record) {
                Some(body) if is_unwanted(&body) => add_hole(&mut steps, location),
                _ => {
                    if !matches!(steps.last(), Some(Step::Write(_))) {
                        let (small, starts, large) = (Vec::new(), Vec::new(), Vec::new());
                        steps.push(Step::Write(Self {
                            segment,
                            offset: location.offset,
                            length: 0,
                            small,
                            starts,
                            large,
                        }));
                    }
                    let Some(Step::Write(chunk)) = steps.last_mut() else { unreachable!("the last step is a write") };
                    let to = chunk.small.len();
                    chunk.starts.push(to);
                    chunk.small.extend_from_slice(record);
                    chunk.large.extend(own.into_iter().map(|(at, payload)| (at - start + to, payload)));
                    chunk.length += length;
                }
            }
        }
        steps
    }

    /// Returns all of it as slices for one write.
    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(2 * self.large.len() + 1);
        let mut from = 0;
        for (at, payload) in &self.large {
            slices.push(IoSlice::new(&self.small[from..*at]));
            slices.push(IoSlice::new(payload));
            from = *at;
        }
        slices.push(IoSlice::new(&self.small[from..]));
        slices.retain(|slice| !slice.is_empty());
        slices
    }
}
