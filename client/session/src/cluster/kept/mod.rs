//! What a session has said and its coordinator may have to be told again: it keeps nothing on disk, so a job's items are
//! the client's until they have their outcomes.
//!
//! No IO and no clock: whoever drives the session shows what it says and hears. What is kept of a message is a reference
//! to its bytes. An outcome costs a look at the batch that it is of, which is the first one as a rule.

pub(super) mod batch;
mod job;
#[cfg(test)]
mod tests;
mod way;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farpool_core::Run;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{AwaitingItems, ClosePool, ItemsDone, OpenPool, PoolAt, PoolReopened};

use job::Job;
use way::Saying;
pub(super) use way::Way;

/// What a session keeps.
pub(super) struct Kept {
    open: Box<OpenPool>,
    /// In the order in which they were opened.
    jobs: BTreeMap<u64, Job>,
    /// No further jobs will come; with `now`, and those that there are are to end.
    close: Option<ClosePool>,
    /// Somebody waits for outcomes, of a client that says so.
    awaiting: bool,
    /// Agents that the pool runs at, as far as was told.
    agents: BTreeSet<Bytes>,
    /// Who has welcomed the pool last.
    coordinator: Bytes,
    /// Outcomes that came for items that had theirs.
    repeated: u64,
}

/// Which outcomes are the first ones of their items.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    All,
    Some(Vec<Run>),
}

impl Kept {
    /// Of a session that begins with this.
    pub(super) fn new(open: OpenPool) -> Self {
        Self {
            open: Box::new(open),
            jobs: BTreeMap::new(),
            close: None,
            awaiting: false,
            agents: BTreeSet::new(),
            coordinator: Bytes::new(),
            repeated: 0,
        }
    }

    /// What the session begins with; `again` and with all that is known, if it is not the first time.
    pub(super) fn opening(&self, again: bool) -> Body {
        let agents = self.agents.iter().cloned().collect();
        Body::OpenPool(Box::new(OpenPool { again, agents, ..(*self.open).clone() }))
    }

    /// Keeps what is about to be said in this way; false: it is for a job that has ended, and is not to be said.
    pub(super) fn say(&mut self, body: &Body, way: Way) -> bool {
        match body {
            Body::OpenJob(open) => {
                self.jobs.insert(open.job, Job::new(open.clone(), way));
                true
            }
            Body::Items(items) => self.jobs.get_mut(&items.job).map(|job| job.keep(items, way)).is_some(),
            Body::EndItems(end) => self.jobs.get_mut(&end.job).map(Job::end_input).is_some(),
            Body::StopRetries(stop) => self.jobs.get_mut(&stop.job).map(Job::stop_retries).is_some(),
            Body::CancelJob(cancel) => self.jobs.get_mut(&cancel.job).map(|job| job.cancelled = true).is_some(),
            Body::ClosePool(close) => {
                self.close.get_or_insert_default().now |= close.now;
                true
            }
            Body::AwaitingItems(awaiting) => {
                self.awaiting = awaiting.waits;
                true
            }
            // Nobody says the last two in a pool's session.
            Body::OpenPool(_) | Body::PoolReopened(_) | Body::Detach(_) | Body::Attach(_) => true,
        }
    }

    /// Items have had their outcomes: which of them for the first time?
    pub(super) fn finish(&mut self, job: u64, first: u64, count: u64) -> Fresh {
        // Nobody waits for the outcomes of a job that has ended.
        let fresh = self.jobs.get_mut(&job).map_or(Fresh::All, |job| job.note(first, count));
        if let Fresh::Some(runs) = &fresh {
            self.repeated += count - runs.iter().map(|run| run.count).sum::<u64>();
        }
        fresh
    }

    /// The job has ended: nothing will be said about it any more.
    pub(super) fn end_job(&mut self, job: u64) {
        self.jobs.remove(&job);
    }

    /// No job is left.
    pub(super) fn end_all(&mut self) {
        self.jobs.clear();
    }

    /// What the coordinator's limit of a job is in the count of whoever feeds it.
    pub(super) fn translate(&self, job: u64, limit: u64) -> u64 {
        self.jobs.get(&job).map_or(limit, |job| job.translate(limit))
    }

    pub(super) fn note_place(&mut self, at: PoolAt) {
        if at.gone {
            self.agents.remove(&at.agent);
        } else {
            self.agents.insert(at.agent);
        }
    }

    /// The session is over, and another one begins. So many of its messages have left.
    pub(super) fn end_session(&mut self, left: u64) {
        self.jobs.values_mut().for_each(|job| job.end_session(left));
    }

    /// Takes out the jobs that were to be cancelled: nobody is there to say that they have ended.
    pub(super) fn take_cancelled(&mut self) -> Vec<u64> {
        self.jobs.extract_if(.., |_, job| job.cancelled).map(|(number, _)| number).collect()
    }

    /// The coordinator has taken the pool, for the first time or again.
    ///
    /// Returns the items that are lost if it is the one that had the pool before: it has given it up, and killed its workers. What
    /// may not run twice may have run. Another one knows from the pool's agents what has become of them.
    pub(super) fn welcome(&mut self, coordinator: Bytes) -> Vec<(u64, Run)> {
        let known = !coordinator.is_empty() && self.coordinator == coordinator;
        self.coordinator = coordinator;
        if !known {
            return Vec::new();
        }
        let mut lost = Vec::new();
        for (&number, job) in &mut self.jobs {
            lost.extend(job.give_up().into_iter().map(|run| (number, run)));
        }
        lost
    }

    /// Says all that a coordinator needs that has just welcomed the pool again, with windows of this size, behind what was said
    /// of the session before.
    ///
    /// What never left comes last, like anything new: it takes its time where the memory is full, while what one coordinator
    /// had room for has its place at the next one too.
    pub(super) fn say_again(&mut self, before: u64, window: u64) -> Vec<Body> {
        let mut say = Saying::new(before);
        self.jobs.values_mut().for_each(|job| job.say_what_left(&mut say, window));
        say.say(Body::PoolReopened(PoolReopened {}));
        self.jobs.values_mut().for_each(|job| job.say_what_never_left(&mut say));
        if self.awaiting {
            say.say(Body::AwaitingItems(AwaitingItems { waits: true }));
        }
        if let Some(close) = self.close {
            say.say(Body::ClosePool(close));
        }
        say.into_messages()
    }

    /// Outcomes that came for items that had theirs.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How many jobs are kept, and how many messages of items.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.jobs.len(), self.jobs.values().map(Job::batches).sum())
    }
}

/// Those of the results that are in these runs.
pub(super) fn part(done: &ItemsDone, runs: &[Run]) -> Vec<ItemsDone> {
    let each = |run: &Run| {
        let from = (run.first - done.first) as usize;
        let (data, ends) = batch::cut(&done.data, &done.ends, from, run.count as usize);
        ItemsDone { job: done.job, first: run.first, data, ends, failed: done.failed, attempts: done.attempts }
    };
    runs.iter().map(each).collect()
}
