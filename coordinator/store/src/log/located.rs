//! A job in the index: its state, and the locations of its records.

use std::collections::BTreeMap;

use super::location::RecordLocation;
use crate::job::{Job, Known};
use crate::runs::Runs;

/// A job, and the locations of its records. Items and outcomes themselves are not in memory.
#[derive(Debug, Default)]
pub(super) struct Located {
    pub(super) job: Job,
    pub(super) pool: u64,
    /// `None` until the record that opens the job was read: other records may have been moved in front of it.
    pub(super) opened: Option<RecordLocation>,
    pub(super) state: Option<RecordLocation>,
    /// By first index: items without outcomes, and outcomes.
    pub(super) items: BTreeMap<u64, Piece>,
    pub(super) outcomes: BTreeMap<u64, Piece>,
    /// The time under which it waits to expire.
    pub(super) waits_since: Option<u64>,
    /// Number of segments with records of it.
    pub(super) segments: u32,
}

/// The unique key of a job: its tenant and its name.
pub(super) type JobKey = (String, String);

pub(super) fn key(known: &Known) -> JobKey {
    (known.owner.tenant().to_owned(), known.name.clone())
}

/// Consecutive items, or their outcomes, in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) location: RecordLocation,
    pub(super) count: u32,
}

impl Located {
    pub(super) fn new(number: u64) -> Self {
        Self { job: Job { number, ..Job::default() }, ..Self::default() }
    }

    /// Returns the records with items that lack outcomes, for items from `first` on: first index, count and location.
    /// Some items of a record may have outcomes.
    pub(super) fn items_from(&self, first: u64) -> impl Iterator<Item = (u64, u64, RecordLocation)> + '_ {
        from(&self.items, first)
    }

    /// Returns the records with outcomes, in the same way. Durable records can be read.
    pub(super) fn outcomes_from(&self, first: u64) -> impl Iterator<Item = (u64, u64, RecordLocation)> + '_ {
        from(&self.outcomes, first)
    }

    /// Returns items without outcome that are not stored, as runs: damage has taken them, unless their client left them
    /// out.
    pub(super) fn lost(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut here = self.job.done.clone();
        for (&first, piece) in &self.items {
            here.insert(first, piece.end(first));
        }
        here.gaps(self.job.end).collect::<Vec<_>>().into_iter()
    }

    /// Returns items whose outcome is not stored.
    pub(super) fn lost_outcomes(&self) -> Runs {
        let here: u64 = self.outcomes.values().map(|piece| u64::from(piece.count)).sum();
        if here == self.job.done.count() {
            return Runs::default();
        }
        let here: Runs = self.outcomes.iter().map(|(first, piece)| (*first, piece.count.into())).collect();
        let mut lost = Runs::default();
        for (first, count) in self.job.done.iter() {
            let (mut from, end) = (first, first + count);
            while let Some((gap, count)) = here.gap(from, end) {
                lost.insert(gap, gap + count);
                from = gap + count;
            }
        }
        lost
    }

    /// Returns since when it waits to be picked up, if it has ended.
    pub(super) fn may_expire(&self) -> Option<u64> {
        (self.opened.is_some() && self.job.ended.is_some()).then_some(self.job.ended_ms)
    }
}

impl Piece {
    pub(super) fn end(&self, first: u64) -> u64 {
        first + u64::from(self.count)
    }
}

fn from(pieces: &BTreeMap<u64, Piece>, first: u64) -> impl Iterator<Item = (u64, u64, RecordLocation)> + '_ {
    let earlier = pieces.range(..first).next_back().filter(|(at, piece)| piece.end(**at) > first);
    earlier.into_iter().chain(pieces.range(first..)).map(|(&at, piece)| (at, piece.count.into(), piece.location))
}

/// Returns the first indices of the pieces that have one of the items from `first` to below `end`.
pub(super) fn overlapping(pieces: &BTreeMap<u64, Piece>, first: u64, end: u64) -> impl Iterator<Item = (u64, Piece)> {
    let earlier = pieces.range(..first).next_back().filter(|(at, piece)| piece.end(**at) > first);
    earlier.into_iter().chain(pieces.range(first..end)).map(|(&at, &piece)| (at, piece))
}
