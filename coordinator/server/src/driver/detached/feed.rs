//! Which items the pool of a job was given, and which are next.

use std::collections::VecDeque;
use std::ops::Range;

use farpool_coordinator::convert::Batch;
use farpool_proto::v1::{Failure, FailureKind};
use farpool_store::{Items, Job, Read, ReadError, Runs, Unread};

/// How many bytes of items one read may return, if they are in several parts.
pub(super) const READ_BYTES: u64 = 1 << 20;

/// How far a job's items were read and sent.
#[derive(Default)]
pub(super) struct Feed {
    /// Items from this index on were not read.
    pub(super) next: u64,
    /// Items before this index cannot be read.
    pub(super) lost: u64,
    /// Why they cannot be read.
    pub(super) why_lost: String,
    /// The pool is being reopened until items up to this index are sent.
    pub(super) reopens: Option<u64>,
    /// How many bytes were sent to the pool, and how many may be sent.
    pub(super) sent: u64,
    pub(super) limit: u64,
    /// How many bytes of items are being read, if any.
    pub(super) reading: Option<u64>,
    /// Items that were read and wait: for room, and until it is durable that they may have been given out.
    pub(super) ready: VecDeque<Batch>,
    pub(super) awaits_durable_note: bool,
    pub(super) input_ended: bool,
}

pub(super) enum Step {
    /// These items are lost.
    Lose(u64, u64),
    /// Read items of this range, up to this many bytes.
    Read(Range<u64>, u64),
    Give,
    EndInput,
    Reopened,
}

impl Feed {
    /// Creates the state of a job whose items before this index may have been given out.
    pub(super) fn new(fed: u64) -> Self {
        Self { reopens: Some(fed), ..Self::default() }
    }

    /// Returns whether the pool is still being reopened.
    pub(super) fn reopens(&self) -> bool {
        self.reopens.is_some()
    }

    pub(super) fn held(&self) -> u64 {
        self.reading.unwrap_or(0) + self.ready.iter().map(Batch::bytes).sum::<u64>()
    }

    /// Returns whether it has no items, and none are being read.
    pub(super) fn is_empty(&self) -> bool {
        self.reading.is_none() && self.ready.is_empty()
    }

    /// Returns the next step. `has_room`: the pool takes another message. `room`: how many bytes may be read, if any.
    pub(super) fn next_step(
        &self,
        job: &Job,
        has_room: impl FnOnce() -> bool,
        room: impl FnOnce() -> Option<u64>,
    ) -> Option<Step> {
        if !self.is_empty() {
            let may_go = self.reading.is_none() && !self.awaits_durable_note && has_room();
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
        // Not beyond the items that are resent.
        let up_to = self.reopens.unwrap_or(job.end);
        Some(Step::Read(first..up_to, room()?.min(READ_BYTES)))
    }

    /// Takes the items that were read and have no outcome. Returns why the rest cannot be read now.
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

    /// Drops all items: the job has ended.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
    }
}

pub(super) fn failure(kind: FailureKind, message: String) -> Failure {
    Failure { kind: kind.into(), message, attempts: 1, ..Failure::default() }
}
