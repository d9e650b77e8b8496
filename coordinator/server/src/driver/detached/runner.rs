//! Runs detached jobs: opens each one's pool as its internal client, sends that client's messages, and handles its
//! events.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use farpool_common::log::{error, warn};
use farpool_coordinator::ClientId;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{
    CancelJob, ClientEvent, ClientMessage, ClosePool, Failure, FailureKind, ItemsDone, OpenJob, OpenPool,
    client_message as ask,
};
use farpool_store::{Entry, Opening, Phase, ReadError};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::super::link::ReadResult;
use super::super::round::Round;
use super::durable::OnDurable;
use super::feed::{Feed, failure};
use super::tracked_store::TrackedStore;

/// The delay before a failed read is retried, in ns.
const AGAIN_NS: u64 = 1_000_000_000;

/// Runs the detached jobs. Numbers of jobs are those of the store.
#[derive(Default)]
pub(super) struct Runner {
    /// Complete jobs whose opening is being read.
    starting: BTreeSet<u64>,
    /// The running jobs by their pools' clients, and vice versa.
    pub(super) runs: BTreeMap<ClientId, Run>,
    clients: BTreeMap<u64, ClientId>,
    /// Events to be handled.
    events: Vec<(ClientId, ClientEvent)>,
    /// Runs that got events in this round.
    pub(super) notified: Vec<ClientId>,
    /// Runs that may be fed.
    pub(super) to_feed: Vec<ClientId>,
    /// Runs that had no room, and when to check them again.
    pub(super) waiting_for_memory: Vec<ClientId>,
    pub(super) check_at: Option<u64>,
    /// How many bytes of items all runs have in memory.
    pub(super) total_held: u64,
    /// All runs are paused, because the store has no room for outcomes.
    paused: bool,
    /// When to retry a failed read.
    again_at: Option<u64>,
    memory_was_full: bool,
}

/// A job that runs.
pub(super) struct Run {
    /// The number in the store, and the number in messages.
    pub(super) job: u64,
    pub(super) wire_number: u64,
    /// Its items must not run twice. So they are given out only once it is durable that they may have been given out.
    pub(super) at_most_once: bool,
    pub(super) feed: Feed,
    /// How many events it has received.
    received: u64,
    /// Agents that the pool has left. This is stored after the outcomes of the items that ran there.
    left: Vec<Bytes>,
    /// Agents where it ran before a restart, until it is known whether it still runs there.
    former: Vec<Bytes>,
    paused: bool,
    /// It has ended or was discarded: events about its items are ignored.
    pub(super) ended: bool,
    /// Cancel requests that wait for its end.
    cancels: Vec<oneshot::Sender<Result<(), Status>>>,
}

impl Runner {
    /// Starts all complete jobs that do not run.
    pub(super) fn start_all(&mut self, tracked: &TrackedStore, round: &Round) {
        let running = tracked.store().jobs().filter(|job| job.phase() == Phase::Running && !tracked.is_received(job));
        let waiting: Vec<u64> =
            running.map(|job| job.number).filter(|number| !self.clients.contains_key(number)).collect();
        waiting.into_iter().for_each(|job| self.start(tracked, round, job));
    }

    /// Starts a job: begins to read its opening.
    pub(super) fn start(&mut self, tracked: &TrackedStore, round: &Round, number: u64) {
        if tracked.job(number).is_some() && self.starting.insert(number) {
            let opening = tracked.store().read_opening(number);
            round.link.read(opening, move |opening| ReadResult::Opening(number, opening));
        }
    }

    /// Opens the pool of a job. If it was open before a restart, the chunks that agents hold are adopted.
    pub(super) fn handle_opening(
        &mut self,
        tracked: &mut TrackedStore,
        round: &mut Round,
        number: u64,
        opening: Result<Opening, ReadError>,
    ) {
        self.starting.remove(&number);
        // It may have been cancelled or discarded.
        let Some(job) = tracked.job(number).filter(|job| job.phase() == Phase::Running) else { return };
        let Opening { pool, job: opened } = match opening {
            Ok(opening) => opening,
            Err(error @ ReadError::Unavailable(_)) => {
                warn!(round.link.log, job = job.name(), %error, "cannot resume a detached job yet");
                return self.try_again(round.now);
            }
            Err(ReadError::Lost(why)) => {
                let failure = failure(FailureKind::Unavailable, format!("the journal is damaged: {why}"));
                return tracked.end(number, false, Some(&failure), round.now, &round.link);
            }
        };
        let known = job.known.clone();
        let former: Vec<Bytes> = job.agents.iter().cloned().collect();
        let pool = OpenPool { id: known.id, again: true, agents: former.clone(), ..*pool };
        let label = if opened.label.is_empty() { known.name } else { opened.label.clone() };
        let at_most_once = opened.retries == 0;
        let id = round.coordinator.connect_client(known.owner);
        let run = Run {
            job: number,
            wire_number: opened.job,
            at_most_once,
            feed: Feed::new(job.fed),
            received: 0,
            left: Vec::new(),
            former,
            paused: false,
            ended: false,
            cancels: Vec::new(),
        };
        self.runs.insert(id, run);
        self.clients.insert(number, id);
        self.send_as(tracked, round, id, ask::Body::OpenPool(Box::new(pool)));
        self.send_as(tracked, round, id, ask::Body::OpenJob(Box::new(OpenJob { label, ..*opened })));
        self.review_pause(round, id);
        self.to_feed.push(id);
    }

    /// Sends a message as the client of a job's pool. If it is refused, the job ends.
    pub(super) fn send_as(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId, body: ask::Body) {
        let message = ClientMessage { body: Some(body) };
        let Err(refused) = round.coordinator.client_message(id, message, round.now, &mut round.out) else { return };
        let why = failure(FailureKind::InvalidArgument, format!("the job cannot run: {refused}"));
        self.end_run(tracked, round, id, false, Some(why));
        self.drop_run(tracked, round, id);
    }

    /// Cancels a running job, and answers when it has ended. Returns `reply` if the job does not run.
    pub(super) fn cancel(
        &mut self,
        tracked: &mut TrackedStore,
        round: &mut Round,
        number: u64,
        reply: oneshot::Sender<Result<(), Status>>,
    ) -> Option<oneshot::Sender<Result<(), Status>>> {
        let Some(&id) = self.clients.get(&number) else { return Some(reply) };
        let run = self.runs.get_mut(&id)?;
        run.cancels.push(reply);
        if !run.ended {
            let job = run.wire_number;
            self.send_as(tracked, round, id, ask::Body::CancelJob(CancelJob { job }));
        }
        None
    }

    /// Closes the pool of a job whose end is durable. Until then the agents keep its outcomes.
    pub(super) fn handle_ended(&mut self, tracked: &mut TrackedStore, round: &mut Round, number: u64) {
        if let Some(&id) = self.clients.get(&number) {
            self.send_as(tracked, round, id, ask::Body::ClosePool(ClosePool { now: false }));
        }
    }

    /// Closes the pool of a job that the store has dropped.
    pub(super) fn job_dropped(&mut self, tracked: &mut TrackedStore, round: &mut Round, number: u64) {
        if let Some(id) = self.clients.remove(&number)
            && let Some(run) = self.runs.get_mut(&id)
        {
            run.ended = true;
            run.feed.forget();
            self.send_as(tracked, round, id, ask::Body::ClosePool(ClosePool { now: true }));
        }
    }

    /// Keeps an event for an internal client.
    pub(super) fn post(&mut self, client: ClientId, event: ClientEvent) {
        if self.runs.contains_key(&client) {
            self.events.push((client, event));
        }
    }

    /// Handles the events that were kept.
    pub(super) fn handle_events(&mut self, tracked: &mut TrackedStore, round: &mut Round) {
        let mut events = std::mem::take(&mut self.events);
        for (id, event) in events.drain(..) {
            if let Some(body) = event.body {
                self.handle_event(tracked, round, id, body);
            }
        }
        self.events = events;
        let mut notified = std::mem::take(&mut self.notified);
        notified.sort_unstable();
        notified.dedup();
        for id in notified.drain(..) {
            self.acknowledge_events(tracked, round, id);
        }
        self.notified = notified;
    }

    /// Returns the job of an internal client.
    pub(super) fn job_of(&self, client: ClientId) -> Option<u64> {
        self.runs.get(&client).map(|run| run.job)
    }

    /// Returns the internal clients.
    pub(super) fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.runs.keys().copied()
    }

    /// Returns how many bytes of items they hold or are reading.
    pub(super) fn held(&self) -> u64 {
        self.runs.values().map(|run| run.feed.held()).sum()
    }

    /// Pauses all jobs while the store has no room for outcomes.
    pub(super) fn pause_for_the_store(&mut self, tracked: &TrackedStore, round: &mut Round) {
        let paused = !tracked.store().takes_outcomes();
        if paused == self.paused {
            return;
        }
        if paused && !tracked.is_failing() && !self.runs.is_empty() {
            warn!(round.link.log, "the journal has no space for results: detached jobs wait for it");
        }
        self.paused = paused;
        let runs: Vec<ClientId> = self.clients().collect();
        runs.into_iter().for_each(|id| self.review_pause(round, id));
    }

    /// Checks the time and the memory. Returns whether failed reads are to be retried.
    pub(super) fn check(&mut self, round: &Round) -> bool {
        let again = self.again_at.is_some_and(|at| at <= round.now);
        if again {
            self.again_at = None;
        }
        let has_room = std::mem::replace(&mut self.memory_was_full, round.memory.is_full) && !round.memory.is_full;
        if again || has_room {
            self.to_feed.extend(self.runs.keys());
        }
        again
    }

    /// Returns when the next check is due.
    pub(super) fn next_check(&self) -> Option<u64> {
        self.again_at.into_iter().chain(self.check_at).min()
    }

    /// Schedules a retry of a failed read.
    pub(super) fn try_again(&mut self, now: u64) {
        self.again_at.get_or_insert(now.saturating_add(AGAIN_NS));
    }

    fn handle_event(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId, body: Body) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.received += 1;
        self.notified.push(id);
        match body {
            Body::Welcome(welcome) => {
                run.feed.limit = welcome.window;
                self.to_feed.push(id);
            }
            Body::Window(window) => {
                run.feed.limit = run.feed.limit.max(window.limit);
                self.to_feed.push(id);
            }
            Body::ItemsDone(done) if !run.ended => {
                self.to_feed.push(id);
                take_results(tracked, round, run.job, done);
            }
            Body::ItemsFailed(failed) if !run.ended => {
                self.to_feed.push(id);
                let failure = failed.failure.unwrap_or_default();
                let failed = Entry::Failed { first: failed.first, count: failed.count, failure: &failure };
                if let Err(error) = tracked.store_mut().append(run.job, failed) {
                    error!(round.link.log, %error, "the journal does not take outcomes");
                }
            }
            Body::JobEnded(ended) => self.end_run(tracked, round, id, ended.cancelled, None),
            Body::PoolFailed(failed) => {
                self.end_run(tracked, round, id, false, Some(failed.failure.unwrap_or_default()));
            }
            Body::PoolAt(at) if at.gone => run.left.push(at.agent),
            // The pool starts there once this is durable: after a restart, the coordinator waits only for agents that it knows.
            Body::PoolAt(at) if !run.ended => {
                let agent = at.agent;
                run.former.retain(|former| *former != agent);
                run.left.retain(|left| *left != agent);
                // An error means that the job is gone.
                let _ = tracked.store_mut().append(run.job, Entry::Placed { agent, gone: false });
            }
            Body::PoolClosed(_) => self.drop_run(tracked, round, id),
            _ => {}
        }
    }

    /// Stores the effects of the events of a round, and acknowledges the events when these are durable.
    fn acknowledge_events(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        round.coordinator.client_numbered(id, run.received);
        if !run.feed.reopens() && !round.coordinator.is_reopening(id) {
            // Agents that have not reconnected by now are no longer awaited.
            run.left.append(&mut run.former);
        }
        if !run.ended {
            for agent in run.left.drain(..) {
                // An error means that the job is gone.
                let _ = tracked.store_mut().append(run.job, Entry::Placed { agent, gone: true });
            }
        }
        tracked.when_durable(OnDurable::Acknowledge(id, run.received));
    }

    fn review_pause(&mut self, round: &mut Round, id: ClientId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let paused = self.paused;
        if std::mem::replace(&mut run.paused, paused) != paused {
            round.coordinator.pause_client(id, paused, round.now, &mut round.out);
        }
    }

    /// Ends a run: no more outcomes arrive.
    fn end_run(
        &mut self,
        tracked: &mut TrackedStore,
        round: &Round,
        id: ClientId,
        cancelled: bool,
        failure: Option<Failure>,
    ) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| !run.ended) else { return };
        run.ended = true;
        run.feed.forget();
        tracked.end(run.job, cancelled, failure.as_ref(), round.now, &round.link);
        run.cancels.drain(..).for_each(|reply| tracked.when_durable(OnDurable::Answer(reply)));
    }

    /// Removes a run whose pool is closed, or could not be opened.
    fn drop_run(&mut self, tracked: &mut TrackedStore, round: &mut Round, id: ClientId) {
        let Some(run) = self.runs.remove(&id) else { return };
        if self.clients.get(&run.job) == Some(&id) {
            self.clients.remove(&run.job);
        }
        run.cancels.into_iter().for_each(|reply| tracked.when_durable(OnDurable::Answer(reply)));
        round.coordinator.client_gone(id, round.now, &mut round.out);
    }
}

fn take_results(tracked: &mut TrackedStore, round: &Round, job: u64, done: ItemsDone) {
    let ItemsDone { first, data, ends, failed, attempts, .. } = done;
    let count = ends.len() as u64 / 4;
    let store = tracked.store_mut();
    let Err(error) = store.append(job, Entry::Done { first, data, ends, failed, attempts }) else { return };
    // The results are too long for a record.
    let why = failure(FailureKind::PayloadTooLarge, format!("the journal does not take the result: {error}"));
    if let Err(error) = store.append(job, Entry::Failed { first, count, failure: &why }) {
        error!(round.link.log, %error, "the journal does not take outcomes");
    }
}
