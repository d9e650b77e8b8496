//! Outcomes that were told and may have to be told again.

use std::collections::VecDeque;

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Failure, ItemFault, RunDone};

/// What an outcome takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// An outcome of some items, in the agent's own names.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Done(RunDone),
    Fault(Box<ItemFault>),
}

impl Outcome {
    /// The first item, and how many there are.
    pub(super) fn items(&self) -> (u64, u64) {
        match self {
            Outcome::Done(done) => (done.first, (done.ends.len() / 4) as u64),
            Outcome::Fault(fault) => (fault.item, 1),
        }
    }

    /// The event that tells it of a chunk that the coordinator knows under this name, as this attempt.
    pub(super) fn under(self, name: u64, attempt: u32) -> Event {
        match self {
            Outcome::Done(done) => Event::RunDone(RunDone { chunk: name, attempt, ..done }),
            Outcome::Fault(fault) => Event::ItemFault(Box::new(ItemFault { chunk: name, attempt, ..*fault })),
        }
    }

    fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Outcome::Done(done) => done.data.len() + done.ends.len(),
                Outcome::Fault(fault) => fault.failure.as_ref().map_or(0, bytes_of_failure),
            }
    }
}

fn bytes_of_failure(failure: &Failure) -> usize {
    failure.message.len() + failure.stderr.len() + failure.backtrace.len()
}

/// An outcome that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its number in the session; of no interest before its pool is adopted.
    report: u64,
    /// Where its chunk is.
    pub(super) chunk: u32,
    pub(super) outcome: Outcome,
}

/// The outcomes of a pool, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    queue: VecDeque<Kept>,
    bytes: usize,
}

impl Outcomes {
    /// Keeps an outcome that is told with this number.
    pub(super) fn push(&mut self, chunk: u32, outcome: Outcome, report: u64) {
        self.bytes += outcome.bytes();
        self.queue.push_back(Kept { report, chunk, outcome });
    }

    /// Takes out the next one that is settled, if all up to this report are; returns where its chunk is.
    pub(super) fn settle(&mut self, report: u64) -> Option<u32> {
        self.queue.front().filter(|kept| kept.report <= report)?;
        let kept = self.queue.pop_front()?;
        self.bytes -= kept.outcome.bytes();
        Some(kept.chunk)
    }

    /// Takes out those of chunks that are not wanted any more; returns these.
    pub(super) fn purge(&mut self, mut unwanted: impl FnMut(u32) -> bool) -> VecDeque<Kept> {
        let (purged, queue) = std::mem::take(&mut self.queue).into_iter().partition(|kept| unwanted(kept.chunk));
        self.queue = queue;
        let purged: VecDeque<Kept> = purged;
        self.bytes -= purged.iter().map(|kept| kept.outcome.bytes()).sum::<usize>();
        purged
    }

    /// Numbers them anew, from the one after `reports` on, and goes through them.
    pub(super) fn tell_again<'a>(&'a mut self, reports: &'a mut u64) -> impl Iterator<Item = &'a Kept> {
        self.queue.iter_mut().map(|kept| {
            *reports += 1;
            kept.report = *reports;
            &*kept
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.queue.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What they take in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
