//! Outcomes that are kept in case they must be resent.

use std::collections::VecDeque;

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Failure, ItemFault, RunDone};

/// Approximate overhead of an outcome in bytes.
const OVERHEAD: usize = 256;

/// An outcome of some items, in the agent's numbers.
#[derive(Clone, Debug)]
pub(super) enum ReportedOutcome {
    Done(RunDone),
    Fault(Box<ItemFault>),
}

impl ReportedOutcome {
    /// Returns the first item and the number of items.
    pub(super) fn items(&self) -> (u64, u64) {
        match self {
            ReportedOutcome::Done(done) => (done.first, (done.ends.len() / 4) as u64),
            ReportedOutcome::Fault(fault) => (fault.item, 1),
        }
    }

    /// Returns the event that reports it under the coordinator's name of the chunk.
    pub(super) fn into_event(self, name: u64, attempt: u32) -> Event {
        match self {
            ReportedOutcome::Done(done) => Event::RunDone(RunDone { chunk: name, attempt, ..done }),
            ReportedOutcome::Fault(fault) => Event::ItemFault(Box::new(ItemFault { chunk: name, attempt, ..*fault })),
        }
    }

    fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                ReportedOutcome::Done(done) => done.data.len() + done.ends.len(),
                ReportedOutcome::Fault(fault) => fault.failure.as_ref().map_or(0, bytes_of_failure),
            }
    }
}

fn bytes_of_failure(failure: &Failure) -> usize {
    failure.message.len() + failure.stderr.len() + failure.backtrace.len()
}

/// A kept outcome.
#[derive(Debug)]
pub(super) struct KeptOutcome {
    /// Its number in the session; unused before its pool is adopted.
    report: u64,
    /// The key of its chunk.
    pub(super) chunk: u32,
    pub(super) outcome: ReportedOutcome,
}

/// The kept outcomes of a pool, in the order in which they arrived.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    queue: VecDeque<KeptOutcome>,
    bytes: usize,
}

impl Outcomes {
    /// Keeps an outcome that is reported with this number.
    pub(super) fn push(&mut self, chunk: u32, outcome: ReportedOutcome, report: u64) {
        self.bytes += outcome.bytes();
        self.queue.push_back(KeptOutcome { report, chunk, outcome });
    }

    /// Removes the next settled outcome, given that all up to this report are. Returns the key of its chunk.
    pub(super) fn settle(&mut self, report: u64) -> Option<u32> {
        self.queue.front().filter(|kept| kept.report <= report)?;
        let kept = self.queue.pop_front()?;
        self.bytes -= kept.outcome.bytes();
        Some(kept.chunk)
    }

    /// Removes and returns the outcomes of unwanted chunks.
    pub(super) fn purge(&mut self, mut unwanted: impl FnMut(u32) -> bool) -> VecDeque<KeptOutcome> {
        let (purged, queue) = std::mem::take(&mut self.queue).into_iter().partition(|kept| unwanted(kept.chunk));
        self.queue = queue;
        let purged: VecDeque<KeptOutcome> = purged;
        self.bytes -= purged.iter().map(|kept| kept.outcome.bytes()).sum::<usize>();
        purged
    }

    /// Renumbers them from `reports` + 1 on, and iterates over them.
    pub(super) fn renumber<'a>(&'a mut self, reports: &'a mut u64) -> impl Iterator<Item = &'a KeptOutcome> {
        self.queue.iter_mut().map(|kept| {
            *reports += 1;
            kept.report = *reports;
            &*kept
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &KeptOutcome> {
        self.queue.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns their approximate size in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
