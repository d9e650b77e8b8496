//! What was given to the pool of a job, and what comes next.

use std::collections::VecDeque;
use std::ops::Range;

use farpool_coordinator::convert::Batch;
use farpool_proto::v1::{Failure, FailureKind};
use farpool_store::{Items, Job, Read, ReadError, Runs, Unread};

/// Bytes of items that are read in one go, if they are in several parts.
pub(super) const READ_BYTES: u64 = 1 << 20;

/// How far a job is fed.
#[derive(Default)]
pub(super) struct Feed {
    /// Items from this index on were not read.
    pub(super) next: u64,
    /// Items in front of this index cannot be read.
    pub(super) lost: u64,
    /// Why not.
    pub(super) why_lost: String,
    /// Until items up to here are sent, the pool is being opened again.
    pub(super) reopens: Option<u64>,
    /// Bytes that the pool was given, and how many it may be.
    pub(super) sent: u64,
    pub(super) limit: u64,
    /// Bytes of items that are being read, if some are.
    pub(super) reading: Option<u64>,
    /// What was read and waits until it may be given out: until there is room, and, if it is being noted, until that is durable.
    pub(super) ready: VecDeque<Batch>,
    pub(super) noting: bool,
    pub(super) input_ended: bool,
}

pub(super) enum Step {
    /// These items are not there.
    Lose(u64, u64),
    /// Items of this range are to be read, and how many bytes.
    Read(Range<u64>, u64),
    Give,
    EndInput,
    Reopened,
}

impl Feed {
    /// Of a job of which items in front of this index may have been given out.
    pub(super) fn new(fed: u64) -> Self {
        Self { reopens: Some(fed), ..Self::default() }
    }

    /// Whether the pool is still being opened again.
    pub(super) fn reopens(&self) -> bool {
        self.reopens.is_some()
    }

    pub(super) fn held(&self) -> u64 {
        self.reading.unwrap_or(0) + self.ready.iter().map(Batch::bytes).sum::<u64>()
    }

    /// Whether it has nothing, nor will when what is being read has come.
    pub(super) fn is_empty(&self) -> bool {
        self.reading.is_none() && self.ready.is_empty()
    }

    /// What is to be done next. `has_room`: the pool takes a further message; `room`: how many bytes may be read, if some may.
    pub(super) fn next_step(
        &self,
        job: &Job,
        has_room: impl FnOnce() -> bool,
        room: impl FnOnce() -> Option<u64>,
    ) -> Option<Step> {
        if !self.is_empty() {
            let may_go = self.reading.is_none() && !self.noting && has_room();
            return may_go.then_some(Step::Give);
        }
        let missing = job.done.gap(self.next, job.end);
        if missing.is_none() && !self.input_ended {
            return Some(Step::EndInput);
        }
        if let Some(up_to) = self.reopens
            && missing.is_none_or(|(first, _)| first >= up_to)
        {
            return Some(Step::Reopened);
        }
        let (first, count) = missing?;
        if first < self.lost {
            return Some(Step::Lose(first, count.min(self.lost - first)));
        }
        // Not beyond what is said again.
        let up_to = self.reopens.unwrap_or(job.end);
        Some(Step::Read(first..up_to, room()?.min(READ_BYTES)))
    }

    /// Takes what was read, as far as it has no outcome; says why the rest cannot be read for now.
    pub(super) fn take(&mut self, read: Read<Items>, done: &Runs) -> Option<String> {
        for Items { first, count, data, ends } in read.parts {
            let (batch, end) = (Batch { first, count, data, ends, failed: false }, first + count);
            while let Some((from, count)) = done.gap(self.next.max(first), end) {
                let whole = (from, count) == (batch.first, batch.count);
                self.ready.push_back(if whole { batch.clone() } else { batch.part(from, count) });
                self.next = from + count;
            }
            self.next = self.next.max(end);
        }
        let Unread { first, count, error } = read.unread?;
        match error {
            ReadError::Lost(why) => {
                (self.lost, self.why_lost) = (first + count, why);
                None
            }
            ReadError::Unavailable(why) => Some(why),
        }
    }

    /// Nothing is wanted any more.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
    }
}

pub(super) fn failure(kind: FailureKind, message: String) -> Failure {
    Failure { kind: kind.into(), message, attempts: 1, ..Failure::default() }
}
