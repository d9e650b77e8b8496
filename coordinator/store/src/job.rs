//! The state of a job that is kept in memory.

use std::collections::BTreeSet;

use bytes::Bytes;
use farpool_coordinator::Principal;
use farpool_proto::v1::Failure;

use super::runs::Runs;

/// A detached job: its description and progress.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Job {
    /// The store's number for it.
    pub number: u64,
    /// Its description.
    pub known: Known,
    /// One above the highest index of an item.
    pub end: u64,
    /// Whether no more items will arrive.
    pub items_ended: bool,
    /// Items that have an outcome.
    pub done: Runs,
    /// How many of these failed.
    pub failed: u64,
    /// Items from this index on were never at an agent.
    pub fed: u64,
    /// The agents at which its pool runs, or last ran.
    pub agents: BTreeSet<Bytes>,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
    /// Why its pool cannot run.
    pub failure: Option<Box<Failure>>,
    /// When its items ended, in milliseconds since 1970; 0: not yet.
    pub complete_ms: u64,
    /// When it ended; 0: not yet.
    pub ended_ms: u64,
}

/// The description of a job that is available without reading the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its owner.
    pub owner: Principal,
    /// Its name.
    pub name: String,
    /// `OpenPool.id` of the pool that it was detached in.
    pub id: Bytes,
    /// `Detach.result`.
    pub result: String,
    /// `Detach.format`.
    pub format: u32,
    /// `OpenJob.label`.
    pub label: String,
    /// `OpenJob.job`.
    pub wire_number: u64,
}

/// The progress of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// More items may arrive.
    Feeding,
    /// All items have arrived, but not all outcomes.
    Running,
    /// No more outcomes will arrive.
    Ended(Ended),
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every item has its outcome.
    Finished,
    /// It was cancelled: items may lack outcomes.
    Cancelled,
    /// Its pool cannot run: see [`Job::failure`].
    Failed,
}

/// Numbers of a job's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// One above the highest index.
    pub items: u64,
    /// Items with an outcome, failures included.
    pub done: u64,
    /// Items that failed.
    pub failed: u64,
}

impl Job {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.known.name
    }

    /// Returns its progress.
    pub fn phase(&self) -> Phase {
        match self.ended {
            Some(ended) => Phase::Ended(ended),
            None if self.items_ended => Phase::Running,
            None => Phase::Feeding,
        }
    }

    /// Returns the numbers of its items.
    pub fn counts(&self) -> Counts {
        Counts { items: self.end, done: self.done.count(), failed: self.failed }
    }
}

impl From<&str> for Known {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
