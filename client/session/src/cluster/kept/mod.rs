//! The messages that a session may have to resend to a restarted coordinator. The coordinator has only detached jobs on
//! disk. So the client keeps a job's items until they have their outcomes, or are durable.
//!
//! No IO and no clock: the session's driver passes in what it sends and receives. A message is kept as a reference to its
//! bytes. An outcome costs a lookup of its batch, which usually is the first one.

mod attached;
mod batch;
mod job;
mod send_state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farpool_core::Run;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Attach, AwaitingItems, ClosePool, ItemsDone, JobEnded, OpenPool, PoolAt, PoolReopened};

use attached::Attached;
use job::KeptJob;
pub(super) use send_state::SendState;
use send_state::StartMessages;

/// The state that a session keeps to resend it.
pub(super) struct KeptSession {
    first_message: FirstMessage,
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

/// The first message of a session, kept to send it again.
pub(super) enum FirstMessage {
    /// Opens a pool.
    Pool(Box<OpenPool>),
    /// Attaches to a detached job, to read its outcomes.
    Attach(Attached),
}

/// Why a coordinator's message cannot be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// It is invalid; the text says how.
    Invalid(String),
    /// Items of a job that is being detached were durable, and no longer are.
    ItemsLost,
    /// Another job has the name of the job that is read.
    JobReplaced,
}

/// Which outcomes are the first for their items.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    All,
    Some(Vec<Run>),
}

impl KeptSession {
    /// Creates the state of a session that begins with this message.
    pub(super) fn new(first_message: FirstMessage) -> Self {
        Self {
            first_message,
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
        match &self.first_message {
            FirstMessage::Pool(open) => {
                let agents = self.agents.iter().cloned().collect();
                Body::OpenPool(Box::new(OpenPool { again, agents, ..(**open).clone() }))
            }
            FirstMessage::Attach(attached) => attached.opening(),
        }
    }

    /// Returns whether the session is for detaching a job.
    pub(super) fn detaches(&self) -> bool {
        matches!(&self.first_message, FirstMessage::Pool(open) if open.detached)
    }

    /// Returns the detached job that the session reads, if it reads one.
    pub(super) fn attached(&mut self) -> Option<&mut Attached> {
        match &mut self.first_message {
            FirstMessage::Pool(_) => None,
            FirstMessage::Attach(attached) => Some(attached),
        }
    }

    /// Notes what the coordinator reports as durable of a job that is being detached.
    pub(super) fn note_durable(&mut self, job: u64, items: u64, complete: bool) -> Result<(), Violation> {
        self.jobs.get_mut(&job).map_or(Ok(()), |job| job.note_durable(items, complete))
    }

    /// Returns the progress of the session's only job: items that are durable, or outcomes that were read. 0 in sessions of
    /// other pools.
    pub(super) fn progress(&self) -> u64 {
        match &self.first_message {
            FirstMessage::Attach(attached) => attached.next(),
            FirstMessage::Pool(open) if open.detached => self.jobs.values().map(KeptJob::durable).sum(),
            FirstMessage::Pool(_) => 0,
        }
    }

    /// Keeps a message that is about to be sent. Returns false if it is for a job that has ended, and must not be sent.
    pub(super) fn keep(&mut self, body: &Body, send_state: SendState) -> bool {
        match body {
            Body::OpenJob(open) => {
                self.jobs.insert(open.job, KeptJob::new(open.clone(), send_state));
                true
            }
            Body::Items(items) => self.jobs.get_mut(&items.job).map(|job| job.keep(items, send_state)).is_some(),
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
            // These are not kept here.
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

    pub(super) fn note_agent(&mut self, at: PoolAt) {
        if at.gone {
            self.agents.remove(&at.agent);
        } else {
            self.agents.insert(at.agent);
        }
    }

    /// Notes that the session has ended, and that `sent` of its messages may have arrived.
    pub(super) fn end_session(&mut self, sent: u64) {
        self.jobs.values_mut().for_each(|job| job.end_session(sent));
    }

    /// Removes the jobs that need no coordinator: those with a pending cancellation, and those whose items all have their
    /// outcome. Returns their ends, which no coordinator can confirm. Shared values stay: other jobs may use them.
    pub(super) fn take_ended(&mut self) -> Vec<JobEnded> {
        let ended = self.jobs.extract_if(.., |_, job| !job.is_shared() && (job.cancelled || job.is_finished()));
        ended.map(|(job, kept)| JobEnded { job, cancelled: !kept.is_finished() }).collect()
    }

    /// Notes that the coordinator has accepted the pool, for the first time or again.
    ///
    /// If it is the same coordinator as before, it has closed the pool and killed its workers. Then items that must
    /// not run twice may have run: they are lost, and returned. Another coordinator learns their state from the pool's
    /// agents.
    pub(super) fn welcome(&mut self, coordinator: Bytes) -> Vec<(u64, Run)> {
        let known = !coordinator.is_empty() && self.coordinator == coordinator;
        self.coordinator = coordinator;
        if !known {
            return Vec::new();
        }
        let mut lost = Vec::new();
        for (&number, job) in &mut self.jobs {
            lost.extend(job.take_lost().into_iter().map(|run| (number, run)));
        }
        lost
    }

    /// Returns everything to resend to a coordinator that has just welcomed the pool again, with windows of this size. `before`:
    /// messages already sent in the session.
    ///
    /// Messages that were never sent come last, like new ones: they have to wait if the coordinator's memory is full. What one
    /// coordinator had room for also fits the next one.
    pub(super) fn resend(&mut self, before: u64, window: u64) -> Vec<Body> {
        self.start_messages(before, window, true)
    }

    /// Returns everything that was queued before the first coordinator has welcomed the session. The parameters are those of
    /// [`resend`](Self::resend).
    pub(super) fn send_first(&mut self, before: u64, window: u64) -> Vec<Body> {
        self.start_messages(before, window, false)
    }

    fn start_messages(&mut self, before: u64, window: u64, again: bool) -> Vec<Body> {
        let mut messages = StartMessages::new(before);
        // Items of any job may use them.
        self.jobs.values_mut().for_each(|job| job.push_shared(&mut messages));
        self.jobs.values_mut().for_each(|job| job.resend_sent(&mut messages, window));
        if again && matches!(self.first_message, FirstMessage::Pool(_)) {
            messages.push(Body::PoolReopened(PoolReopened {}));
        }
        self.jobs.values_mut().for_each(|job| job.send_unsent(&mut messages));
        self.jobs.values().for_each(|job| job.push_drop(&mut messages));
        if self.awaiting {
            messages.push(Body::AwaitingItems(AwaitingItems { waits: true }));
        }
        if let Some(close) = self.close {
            messages.push(Body::ClosePool(close));
        }
        messages.into_messages()
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

impl From<OpenPool> for FirstMessage {
    fn from(open: OpenPool) -> Self {
        Self::Pool(Box::new(open))
    }
}

impl From<Attach> for FirstMessage {
    fn from(attach: Attach) -> Self {
        Self::Attach(Attached::new(attach))
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
