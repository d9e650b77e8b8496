//! What the journal knows of a job.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farpool_coordinator::Principal;
use farpool_proto::v1::Failure;

use super::place::Place;
use super::runs::Runs;

/// A detached job: what it is called, how far it is, and where its records are. Of items and outcomes only places are in
/// memory.
#[derive(Debug, Default)]
pub struct Job {
    pub(super) number: u64,
    pub(super) known: Known,
    pub(super) pool: u64,
    /// None as long as only records were seen that had been moved in front of it.
    pub(super) opened: Option<Place>,
    pub(super) state: Option<Place>,
    /// By first index: items without outcomes, and outcomes.
    pub(super) items: BTreeMap<u64, Piece>,
    pub(super) outcomes: BTreeMap<u64, Piece>,
    pub(super) done: Runs,
    pub(super) failed: u64,
    pub(super) end: u64,
    pub(super) items_ended: bool,
    pub(super) ended: Option<Ended>,
    pub(super) failure: Option<Box<Failure>>,
    pub(super) fed: u64,
    pub(super) agents: BTreeSet<Bytes>,
    pub(super) complete_ms: u64,
    pub(super) ended_ms: u64,
    /// Under which time it waits to expire.
    pub(super) waits_since: Option<u64>,
    /// How many segments have records of it.
    pub(super) segments: u32,
}

/// What a job is known by, and what is told of it without a look at the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its owner.
    pub owner: Principal,
    /// What it is asked for by.
    pub name: String,
    /// `Detach.id`.
    pub id: Bytes,
    /// `Detach.result`.
    pub result: String,
    /// `Detach.format`.
    pub format: u32,
    /// `OpenJob.label`.
    pub label: String,
    /// `OpenJob.job`.
    pub named: u64,
}

/// What a job is found by: its tenant and its name, which no other job has together.
pub(super) type JobKey = (String, String);

impl Known {
    pub(super) fn key(&self) -> JobKey {
        (self.owner.tenant().to_owned(), self.name.clone())
    }
}

/// Consecutive items, or their outcomes, that are one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub(super) place: Place,
    pub(super) count: u32,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Items may still come.
    Feeding,
    /// All items are there, not all outcomes.
    Running,
    /// No more outcomes come.
    Ended(Ended),
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every item has its outcome.
    Finished,
    /// It was cancelled: not every item need have one.
    Cancelled,
    /// Its pool cannot run: see [`Job::failure`].
    Failed,
}

/// How many of its items a job has got how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// One behind the highest index.
    pub items: u64,
    /// With an outcome, failures included.
    pub done: u64,
    /// With a failure.
    pub failed: u64,
}

impl Job {
    /// The journal's number for it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it is asked for by.
    pub fn name(&self) -> &str {
        &self.known.name
    }

    /// What it is known by.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// What it was opened in.
    pub fn pool(&self) -> u64 {
        self.pool
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        match self.ended {
            Some(ended) => Phase::Ended(ended),
            None if self.items_ended => Phase::Running,
            None => Phase::Feeding,
        }
    }

    /// How many of its items have got how far.
    pub fn counts(&self) -> Counts {
        Counts { items: self.end, done: self.done.count(), failed: self.failed }
    }

    /// Why its pool cannot run.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    /// Items from this index on were never at an agent.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// The agents at which its pool runs, or ran when it was last heard of.
    pub fn agents(&self) -> impl Iterator<Item = &Bytes> {
        self.agents.iter()
    }

    /// When its items ended, and when it did, in milliseconds since 1970; 0: not yet.
    pub fn times_ms(&self) -> (u64, u64) {
        (self.complete_ms, self.ended_ms)
    }

    /// Where its `OpenJob` is.
    pub fn opened(&self) -> Option<Place> {
        self.opened
    }

    /// Items that have an outcome.
    pub fn done(&self) -> &Runs {
        &self.done
    }

    /// Records with items that lack outcomes, from those on that have items from `first` on: first index, count and
    /// place. Some of the items of a record may have outcomes.
    pub fn items_from(&self, first: u64) -> impl Iterator<Item = (u64, u64, Place)> + '_ {
        from(&self.items, first)
    }

    /// Records with outcomes, in the same manner. What of it is durable can be read.
    pub fn outcomes_from(&self, first: u64) -> impl Iterator<Item = (u64, u64, Place)> + '_ {
        from(&self.outcomes, first)
    }

    /// Items that have no outcome and are not here, as runs: damage has taken them, if their client did not leave them
    /// out.
    pub fn lost(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut here = self.done.clone();
        for (&first, piece) in &self.items {
            here.insert(first, piece.end(first));
        }
        here.gaps(self.end).collect::<Vec<_>>().into_iter()
    }

    /// Since when it waits to be picked up, if it has ended.
    pub(super) fn may_expire(&self) -> Option<u64> {
        (self.opened.is_some() && self.ended.is_some()).then_some(self.ended_ms)
    }
}

impl Piece {
    pub(super) fn end(&self, first: u64) -> u64 {
        first + u64::from(self.count)
    }
}

impl From<&str> for Known {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

fn from(pieces: &BTreeMap<u64, Piece>, first: u64) -> impl Iterator<Item = (u64, u64, Place)> + '_ {
    let earlier = pieces.range(..first).next_back().filter(|(at, piece)| piece.end(**at) > first);
    earlier.into_iter().chain(pieces.range(first..)).map(|(&at, piece)| (at, piece.count.into(), piece.place))
}

/// The first indices of the pieces that have one of the items from `first` to below `end`.
pub(super) fn overlapping(pieces: &BTreeMap<u64, Piece>, first: u64, end: u64) -> impl Iterator<Item = (u64, Piece)> {
    let earlier = pieces.range(..first).next_back().filter(|(at, piece)| piece.end(**at) > first);
    earlier.into_iter().chain(pieces.range(first..end)).map(|(&at, &piece)| (at, piece))
}
