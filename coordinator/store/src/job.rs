//! What is known of a job without reading anything.

use std::collections::BTreeSet;

use bytes::Bytes;
use farpool_coordinator::Principal;
use farpool_proto::v1::Failure;

use super::runs::Runs;

/// A detached job: what it is called, and how far it is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Job {
    /// The store's number for it.
    pub number: u64,
    /// What it is known by.
    pub known: Known,
    /// One behind the highest index of an item.
    pub end: u64,
    /// No more items come.
    pub items_ended: bool,
    /// Items that have an outcome.
    pub done: Runs,
    /// How many of these failed.
    pub failed: u64,
    /// Items from this index on were never at an agent.
    pub fed: u64,
    /// The agents at which its pool runs, or ran when it was last heard of.
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
    /// What it is asked for by.
    pub fn name(&self) -> &str {
        &self.known.name
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
}

impl From<&str> for Known {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}
