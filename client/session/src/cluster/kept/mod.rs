//! The messages that a session may have to resend to a restarted coordinator. The coordinator keeps nothing on disk, so the
//! client keeps a job's items until they have their outcomes.
//!
//! No IO and no clock: the session's driver passes in what it sends and receives. A message is kept as a reference to its
//! bytes. An outcome costs a lookup of its batch, which usually is the first one.

mod attached;
mod batch;
mod job;
#[cfg(test)]
mod tests;
mod way;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farpool_core::Run;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Attach, AwaitingItems, ClosePool, ItemsDone, OpenPool, PoolAt, PoolReopened};

use attached::Attached;
use job::KeptJob;
use way::Saying;
pub(super) use way::Way;

/// The state that a session keeps to resend it.
pub(super) struct Kept {
    greeting: Greeting,
    /// In the order in which they were opened.
    jobs: BTreeMap<u64, KeptJob>,
    /// The pool is closed to further jobs; with `now`, open jobs end too.
    close: Option<ClosePool>,
    /// The client has reported that it waits for outcomes.
    awaiting: bool,
    /// Agents that run the pool, as far as the coordinator has reported.
    agents: BTreeSet<Bytes>,
    /// The coordinator that last welcomed the pool.
    coordinator: Bytes,
    /// Outcomes that arrived again for the same item.
    repeated: u64,
}

/// How a session begins, and what may be asked for again.
pub(super) enum Greeting {
    /// With a pool.
    Pool(Box<OpenPool>),
    /// With a detached job, whose outcomes are read.
    Reader(Attached),
}

/// What a coordinator said that cannot be true.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// It says what no coordinator can say.
    Nonsense(String),
    /// Items of a job that is being detached were durable, and are not any more.
    Lost,
    /// Another job has the name of the job that is read.
    Replaced,
}

/// Which outcomes are the first for their items.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    All,
    Some(Vec<Run>),
}

impl Kept {
    /// Creates the state of a session that begins with this message.
    pub(super) fn new(greeting: Greeting) -> Self {
        Self {
            greeting,
            jobs: BTreeMap::new(),
            close: None,
            awaiting: false,
            agents: BTreeSet::new(),
            coordinator: Bytes::new(),
            repeated: 0,
        }
    }

    /// Returns the first message of a session; with `again`, it has everything known about the pool.
    pub(super) fn opening(&self, again: bool) -> Body {
        match &self.greeting {
            Greeting::Pool(open) => {
                let agents = self.agents.iter().cloned().collect();
                Body::OpenPool(Box::new(OpenPool { again, agents, ..(**open).clone() }))
            }
            Greeting::Reader(attached) => attached.opening(),
        }
    }

    /// Returns whether the session's pool is there to detach a job.
    pub(super) fn detaches(&self) -> bool {
        matches!(&self.greeting, Greeting::Pool(open) if open.detached)
    }

    /// Returns the job that the session reads, if it does.
    pub(super) fn attached(&mut self) -> Option<&mut Attached> {
        match &mut self.greeting {
            Greeting::Pool(_) => None,
            Greeting::Reader(attached) => Some(attached),
        }
    }

    /// Notes what the coordinator reports as durable of a job that is being detached.
    pub(super) fn note_durable(&mut self, job: u64, items: u64, complete: bool) -> Result<(), Lie> {
        self.jobs.get_mut(&job).map_or(Ok(()), |job| job.note_durable(items, complete))
    }

    /// Returns how far the session's only job has come: items that are durable, or outcomes that were read. 0 in sessions of
    /// other pools.
    pub(super) fn progress(&self) -> u64 {
        match &self.greeting {
            Greeting::Reader(attached) => attached.next(),
            Greeting::Pool(open) if open.detached => self.jobs.values().map(KeptJob::durable).sum(),
            Greeting::Pool(_) => 0,
        }
    }

    /// Keeps a message that is about to be sent. Returns false if it is for a job that has ended, and must not be sent.
    pub(super) fn say(&mut self, body: &Body, way: Way) -> bool {
        match body {
            Body::OpenJob(open) => {
                self.jobs.insert(open.job, KeptJob::new(open.clone(), way));
                true
            }
            Body::Items(items) => self.jobs.get_mut(&items.job).map(|job| job.keep(items, way)).is_some(),
            Body::EndItems(end) => self.jobs.get_mut(&end.job).map(KeptJob::end_input).is_some(),
            Body::StopRetries(stop) => self.jobs.get_mut(&stop.job).map(KeptJob::stop_retries).is_some(),
            Body::CancelJob(cancel) => self.jobs.get_mut(&cancel.job).map(|job| job.cancelled = true).is_some(),
            Body::ClosePool(close) => {
                self.close.get_or_insert_default().now |= close.now;
                true
            }
            Body::AwaitingItems(awaiting) => {
                self.awaiting = awaiting.waits;
                true
            }
            // These are not said here.
            Body::OpenPool(_) | Body::PoolReopened(_) | Body::Attach(_) => true,
        }
    }

    /// Notes outcomes of items; returns which of them are the first for their item.
    pub(super) fn finish(&mut self, job: u64, first: u64, count: u64) -> Fresh {
        // Outcomes of an ended job go nowhere.
        let fresh = self.jobs.get_mut(&job).map_or(Fresh::All, |job| job.note(first, count));
        if let Fresh::Some(runs) = &fresh {
            self.repeated += count - runs.iter().map(|run| run.count).sum::<u64>();
        }
        fresh
    }

    /// Forgets a job that has ended.
    pub(super) fn end_job(&mut self, job: u64) {
        self.jobs.remove(&job);
    }

    /// Forgets all jobs.
    pub(super) fn end_all(&mut self) {
        self.jobs.clear();
    }

    /// Converts the coordinator's limit of a job to the count of the thread that feeds it.
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

    /// Notes that the session has ended, and that `left` of its messages may have arrived.
    pub(super) fn end_session(&mut self, left: u64) {
        self.jobs.values_mut().for_each(|job| job.end_session(left));
    }

    /// Removes the jobs with a pending cancellation: no coordinator can confirm their end.
    pub(super) fn take_cancelled(&mut self) -> Vec<u64> {
        self.jobs.extract_if(.., |_, job| job.cancelled).map(|(number, _)| number).collect()
    }

    /// Notes that the coordinator has accepted the pool, for the first time or again.
    ///
    /// If it is the same coordinator as before, it has given up the pool and killed its workers. Then items that must not run twice
    /// may have run: they are lost, and returned. Another coordinator learns their state from the pool's agents.
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

    /// Returns everything to resend to a coordinator that has just welcomed the pool again, with windows of this size. `before`:
    /// messages already sent in the session.
    ///
    /// Messages that were never sent come last, like new ones: they have to wait if the coordinator's memory is full. What one
    /// coordinator had room for also fits the next one.
    pub(super) fn resend(&mut self, before: u64, window: u64) -> Vec<Body> {
        self.say_all(before, window, true)
    }

    /// As [`resend`](Self::resend), for the first coordinator that has welcomed the session: what was said before that.
    pub(super) fn say_first(&mut self, before: u64, window: u64) -> Vec<Body> {
        self.say_all(before, window, false)
    }

    fn say_all(&mut self, before: u64, window: u64, again: bool) -> Vec<Body> {
        let mut say = Saying::new(before);
        self.jobs.values_mut().for_each(|job| job.say_what_left(&mut say, window));
        if again && matches!(self.greeting, Greeting::Pool(_)) {
            say.say(Body::PoolReopened(PoolReopened {}));
        }
        self.jobs.values_mut().for_each(|job| job.say_what_never_left(&mut say));
        if self.awaiting {
            say.say(Body::AwaitingItems(AwaitingItems { waits: true }));
        }
        if let Some(close) = self.close {
            say.say(Body::ClosePool(close));
        }
        say.into_messages()
    }

    /// Returns how many outcomes arrived again for the same item.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Returns how many jobs are kept, and how many messages of items.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.jobs.len(), self.jobs.values().map(KeptJob::batches).sum())
    }
}

impl From<OpenPool> for Greeting {
    fn from(open: OpenPool) -> Self {
        Self::Pool(Box::new(open))
    }
}

impl From<Attach> for Greeting {
    fn from(attach: Attach) -> Self {
        Self::Reader(Attached::new(attach))
    }
}

/// Returns the results that are in these runs.
pub(super) fn part(done: &ItemsDone, runs: &[Run]) -> Vec<ItemsDone> {
    let each = |run: &Run| {
        let from = (run.first - done.first) as usize;
        let (data, ends) = batch::cut(&done.data, &done.ends, from, run.count as usize);
        ItemsDone { job: done.job, first: run.first, data, ends, failed: done.failed, attempts: done.attempts }
    };
    runs.iter().map(each).collect()
}
