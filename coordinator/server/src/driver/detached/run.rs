//! The client of a detached job's pool: what it says, and what it does with what it hears.

use bytes::Bytes;
use farpool_common::log::{error, info, warn};
use farpool_coordinator::ClientId;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{
    CancelJob, ClientMessage, Failure, FailureKind, ItemsDone, OpenJob, OpenPool, client_message as ask,
};
use farpool_store::{Entry, Opening, Phase, ReadError};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::super::link::WasRead;
use super::super::Driver;
use super::durable::Then;
use super::feed::Feed;

/// A job that runs.
pub(super) struct Run {
    /// The store's number, and the client's, which is its name in the pool.
    pub(super) job: u64,
    pub(super) named: u64,
    /// Its items must not run a second time, whatever happens: what may have been given out is durable before it is.
    pub(super) at_most_once: bool,
    pub(super) feed: Feed,
    /// Messages of the pool that were heard.
    heard: u64,
    /// Places that the pool does not run at any more: noted behind the outcomes of what ran there.
    left: Vec<Bytes>,
    /// Where it ran when its coordinator was lost, as long as it is not known whether it still does.
    former: Vec<Bytes>,
    paused: bool,
    /// It has ended or is not wanted any more. What is heard of its items is of no use.
    pub(super) ended: bool,
    /// Who waits for its end.
    pub(super) cancels: Vec<oneshot::Sender<Result<(), Status>>>,
}

impl Run {
    pub(super) fn held(&self) -> u64 {
        self.feed.held()
    }
}

impl Driver {
    /// Has all complete jobs go on that do not run.
    pub(super) fn start_all(&mut self) {
        let Some(store) = &self.detached.store else { return };
        let waiting =
            |job: &u64| !self.detached.clients.contains_key(job) && !self.detached.receiving.contains_key(job);
        let running = store.jobs().filter(|job| job.phase() == Phase::Running).map(|job| job.number);
        let waiting: Vec<u64> = running.filter(waiting).collect();
        waiting.into_iter().for_each(|job| self.start(job));
    }

    /// Has a job run: first it is read what it was opened with.
    pub(super) fn start(&mut self, number: u64) {
        let Some(store) = &self.detached.store else { return };
        if store.job(number).is_some() && self.detached.starting.insert(number) {
            self.link.read(store.read_opening(number), move |opening| WasRead::Opening(number, opening));
        }
    }

    pub(in super::super) fn was_read(&mut self, read: WasRead) {
        match read {
            WasRead::Opening(job, opening) => self.open_run(job, opening),
            WasRead::Items(id, items) => self.take_items(id, items),
            WasRead::Outcomes(stream, outcomes) => self.send_outcomes(stream, outcomes),
            WasRead::Program(job, pinned) => self.is_pinned(job, pinned),
        }
    }

    /// Opens the pool of a job. It may have been open before: what agents have of it, it goes on with.
    fn open_run(&mut self, number: u64, opening: Result<Opening, ReadError>) {
        self.detached.starting.remove(&number);
        let Some(store) = &mut self.detached.store else { return };
        // It may have been cancelled or discarded meanwhile.
        let Some(job) = store.job(number).filter(|job| job.phase() == Phase::Running) else { return };
        let (pool, opened) = match opening {
            Ok(Opening { pool, job }) => (*pool, *job),
            Err(error @ ReadError::Unavailable(_)) => {
                warn!(self.link.log, job = job.name(), %error, "cannot resume a detached job yet");
                return self.try_again();
            }
            Err(ReadError::Lost(why)) => {
                let failure = failure(FailureKind::Unavailable, format!("the journal is damaged: {why}"));
                return self.end_unopened(number, false, Some(failure));
            }
        };
        let known = job.known.clone();
        let former: Vec<Bytes> = job.agents.iter().cloned().collect();
        let pool = OpenPool { id: known.id, again: true, agents: former.clone(), ..pool };
        let label = if opened.label.is_empty() { known.name } else { opened.label.clone() };
        let at_most_once = opened.retries == 0;
        let id = self.coordinator.connect_client(known.owner);
        let run = Run {
            job: number,
            named: opened.job,
            at_most_once,
            feed: Feed::new(job.fed),
            heard: 0,
            left: Vec::new(),
            former,
            paused: false,
            ended: false,
            cancels: Vec::new(),
        };
        self.detached.runs.insert(id, run);
        self.detached.clients.insert(number, id);
        self.say_for(id, ask::Body::OpenPool(Box::new(pool)));
        self.say_for(id, ask::Body::OpenJob(Box::new(OpenJob { label, ..opened })));
        self.review_pause(id);
        self.detached.hungry.push(id);
    }

    /// Says something as the client of a job's pool. What is refused is the end of the job.
    pub(super) fn say_for(&mut self, id: ClientId, body: ask::Body) {
        let message = ClientMessage { body: Some(body) };
        let Err(refused) = self.coordinator.client_message(id, message, self.now, &mut self.out) else { return };
        let why = failure(FailureKind::InvalidArgument, format!("the job cannot run: {refused}"));
        self.end_run(id, false, Some(why));
        self.drop_run(id);
    }

    pub(super) fn cancel_run(&mut self, id: ClientId) {
        if let Some(run) = self.detached.runs.get(&id).filter(|run| !run.ended) {
            let job = run.named;
            self.say_for(id, ask::Body::CancelJob(CancelJob { job }));
        }
    }

    /// Takes in what the pools have told their clients.
    pub(in super::super) fn hear_pools(&mut self) {
        let mut mail = std::mem::take(&mut self.detached.mail);
        for (id, event) in mail.drain(..) {
            if let Some(body) = event.body {
                self.hear(id, body);
            }
        }
        self.detached.mail = mail;
        let mut told = std::mem::take(&mut self.detached.told);
        told.sort_unstable();
        told.dedup();
        for id in told.drain(..) {
            self.note_heard(id);
        }
        self.detached.told = told;
    }

    fn hear(&mut self, id: ClientId, body: Body) {
        let Some(run) = self.detached.runs.get_mut(&id) else { return };
        let Some(store) = &mut self.detached.store else { return };
        run.heard += 1;
        self.detached.told.push(id);
        match body {
            Body::Welcome(welcome) => {
                run.feed.limit = welcome.window;
                self.detached.hungry.push(id);
            }
            Body::Window(window) => {
                run.feed.limit = run.feed.limit.max(window.limit);
                self.detached.hungry.push(id);
            }
            Body::ItemsDone(done) if !run.ended => {
                self.detached.hungry.push(id);
                self.take_results(id, done);
            }
            Body::ItemsFailed(failed) if !run.ended => {
                self.detached.hungry.push(id);
                let failure = failed.failure.unwrap_or_default();
                let failed = Entry::Failed { first: failed.first, count: failed.count, failure: &failure };
                if let Err(error) = store.append(run.job, failed) {
                    error!(self.link.log, %error, "the journal does not take outcomes");
                }
            }
            Body::JobEnded(ended) => self.end_run(id, ended.cancelled, None),
            Body::PoolFailed(failed) => self.end_run(id, false, Some(failed.failure.unwrap_or_default())),
            Body::PoolAt(at) if at.gone => run.left.push(at.agent),
            Body::PoolAt(at) if !run.ended => self.is_placed(id, at.agent),
            Body::PoolClosed(_) => self.drop_run(id),
            _ => {}
        }
    }

    fn take_results(&mut self, id: ClientId, done: ItemsDone) {
        let Some(run) = self.detached.runs.get(&id) else { return };
        let Some(store) = &mut self.detached.store else { return };
        let ItemsDone { first, data, ends, failed, attempts, .. } = done;
        let count = ends.len() as u64 / 4;
        let Err(error) = store.append(run.job, Entry::Done { first, data, ends, failed, attempts }) else { return };
        // They are too long for a record.
        let why = failure(FailureKind::PayloadTooLarge, format!("the journal does not take the result: {error}"));
        if let Err(error) = store.append(run.job, Entry::Failed { first, count, failure: &why }) {
            error!(self.link.log, %error, "the journal does not take outcomes");
        }
    }

    /// The pool is to run at an agent, and does as soon as that is durable: a coordinator that does not know of the agent
    /// would not wait for it.
    fn is_placed(&mut self, id: ClientId, agent: Bytes) {
        let Some(run) = self.detached.runs.get_mut(&id) else { return };
        let Some(store) = &mut self.detached.store else { return };
        run.former.retain(|former| *former != agent);
        run.left.retain(|left| *left != agent);
        // An error means that the job is gone.
        let _ = store.append(run.job, Entry::Placed { agent, gone: false });
    }

    /// Behind what was heard in a round.
    fn note_heard(&mut self, id: ClientId) {
        let Some(run) = self.detached.runs.get_mut(&id) else { return };
        self.coordinator.client_numbered(id, run.heard);
        if !run.feed.reopens() && !self.coordinator.is_reopening(id) {
            // Those that did not come back with it were not waited for any longer.
            run.left.append(&mut run.former);
        }
        if let Some(store) = &mut self.detached.store
            && !run.ended
        {
            for agent in run.left.drain(..) {
                // An error means that the job is gone.
                let _ = store.append(run.job, Entry::Placed { agent, gone: true });
            }
        }
        self.detached.then.push(Then::Acknowledge(id, run.heard));
    }

    /// Pauses all jobs when outcomes have no room, and lets them go on when there is some.
    pub(super) fn pause_for_the_disk(&mut self) {
        let Some(store) = &self.detached.store else { return };
        let paused = !store.takes_outcomes();
        if paused == self.detached.paused {
            return;
        }
        if paused && self.detached.failing.is_none() && !self.detached.runs.is_empty() {
            warn!(self.link.log, "the journal has no space for results: detached jobs wait for it");
        }
        self.detached.paused = paused;
        let runs: Vec<ClientId> = self.detached.played().collect();
        runs.into_iter().for_each(|id| self.review_pause(id));
    }

    fn review_pause(&mut self, id: ClientId) {
        let Some(run) = self.detached.runs.get_mut(&id) else { return };
        let paused = self.detached.paused;
        if std::mem::replace(&mut run.paused, paused) != paused {
            self.coordinator.pause_client(id, paused, self.now, &mut self.out);
        }
    }

    /// No more outcomes come.
    fn end_run(&mut self, id: ClientId, cancelled: bool, failure: Option<Failure>) {
        let Some(run) = self.detached.runs.get_mut(&id).filter(|run| !run.ended) else { return };
        run.ended = true;
        run.feed.forget();
        let (job, cancels) = (run.job, std::mem::take(&mut run.cancels));
        self.end_unopened(job, cancelled, failure);
        self.detached.then.extend(cancels.into_iter().map(Then::Answer));
    }

    /// Writes down that a job has ended.
    pub(super) fn end_unopened(&mut self, number: u64, cancelled: bool, failure: Option<Failure>) {
        let now = self.now_ms();
        let Some(store) = &mut self.detached.store else { return };
        let Some(job) = store.job(number) else { return };
        let name = job.name();
        match &failure {
            Some(failure) => error!(self.link.log, job = name, reason = failure.message, "detached job cannot run"),
            None if cancelled => info!(self.link.log, job = name, "detached job cancelled"),
            None => info!(self.link.log, job = name, "detached job finished"),
        }
        let ended = Entry::Ended { cancelled, failure: failure.as_ref(), now_ms: now };
        if store.append(number, ended).is_ok() {
            self.detached.ending.insert(number);
            self.detached.then.push(Then::Ended(number));
        }
        self.detached.pins.remove(&number);
    }

    /// The pool of a job is closed, or was not to be opened.
    fn drop_run(&mut self, id: ClientId) {
        let Some(run) = self.detached.runs.remove(&id) else { return };
        if self.detached.clients.get(&run.job) == Some(&id) {
            self.detached.clients.remove(&run.job);
        }
        self.detached.then.extend(run.cancels.into_iter().map(Then::Answer));
        self.coordinator.client_gone(id, self.now, &mut self.out);
    }

    /// Tries in a while what the disk does not do now.
    pub(super) fn try_again(&mut self) {
        self.detached.again_at.get_or_insert(self.now.saturating_add(super::AGAIN_NS));
    }
}

pub(super) fn failure(kind: FailureKind, message: String) -> Failure {
    Failure { kind: kind.into(), message, attempts: 1, ..Failure::default() }
}
