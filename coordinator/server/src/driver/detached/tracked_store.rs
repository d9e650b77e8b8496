//! The store, and the loop's records about it: unacknowledged entries, the actions that wait for them, and the jobs'
//! programs.

use std::collections::{BTreeMap, BTreeSet};

use farpool_common::log::{error, info, warn};
use farpool_programs::{Digest, InUse};
use farpool_proto::v1::{DetachedJob, DetachedState, Failure, FileAside, JournalStatus};
use farpool_store::{Aside, Description, Ended, Entry, Job, JobStore, Phase};
use tonic::Status;

use super::super::super::link::{Input, Link, ReadResult};
use super::super::super::programs::Programs;
use super::durable::{Durable, OnDurable};
use super::failing::Failing;
use super::open::Opened;

pub(super) struct TrackedStore {
    store: Box<dyn JobStore>,
    programs: Programs,
    /// The programs of jobs that have not ended. They must not be removed.
    pins: BTreeMap<u64, InUse>,
    /// When the server's clock was 0, in ms since 1970.
    started_ms: u64,
    /// Jobs whose completion, or end, was appended and is not acknowledged yet.
    completing: BTreeSet<u64>,
    ending: BTreeSet<u64>,
    durable: Durable,
    failing: Option<Failing>,
}

impl TrackedStore {
    pub(super) fn new(Opened { store, programs, pins, now_ms }: Opened) -> Self {
        Self {
            store,
            programs,
            pins,
            started_ms: now_ms,
            completing: BTreeSet::new(),
            ending: BTreeSet::new(),
            durable: Durable::default(),
            failing: None,
        }
    }

    pub(super) fn store(&self) -> &dyn JobStore {
        &*self.store
    }

    pub(super) fn store_mut(&mut self) -> &mut dyn JobStore {
        &mut *self.store
    }

    pub(super) fn job(&self, number: u64) -> Option<&Job> {
        self.store.job(number)
    }

    /// Converts a time of the server's clock to ms since 1970.
    pub(super) fn now_ms(&self, now: u64) -> u64 {
        self.started_ms + now / 1_000_000
    }

    /// Returns when the next job expires, on the server's clock. None expires while nothing can be written.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let at = self.store.next_expiry().filter(|_| self.failing.is_none())?;
        Some(at.saturating_sub(self.started_ms).saturating_mul(1_000_000))
    }

    /// Drops the jobs that have expired, and returns them.
    pub(super) fn expire(&mut self, now: u64, link: &Link) -> Vec<u64> {
        let now = self.now_ms(now);
        if self.failing.is_some() || self.store.next_expiry().is_none_or(|at| at > now) {
            return Vec::new();
        }
        match self.store.expire(now) {
            Ok(gone) => {
                gone.iter().for_each(|(_, name)| info!(link.log, job = %name, "detached job expired"));
                gone.into_iter().map(|(number, _)| number).collect()
            }
            Err(error) => {
                warn!(link.log, %error, "cannot expire detached jobs yet");
                Vec::new()
            }
        }
    }

    /// Returns whether a job is still being detached: it is incomplete, or its completion is not acknowledged.
    pub(super) fn is_received(&self, job: &Job) -> bool {
        job.phase() == Phase::Feeding || self.is_completing(job.number)
    }

    /// Returns whether a job's completion was appended and is not acknowledged.
    pub(super) fn is_completing(&self, job: u64) -> bool {
        self.completing.contains(&job)
    }

    /// Returns how a job has ended, once that is acknowledged.
    pub(super) fn ended(&self, job: &Job) -> Option<Ended> {
        job.ended.filter(|_| !self.ending.contains(&job.number))
    }

    /// Describes a job.
    pub(super) fn describe(&self, job: &Job) -> DetachedJob {
        let (known, counts) = (&job.known, job.counts());
        let expiry = u64::try_from(self.store.expiry().as_millis()).unwrap_or(u64::MAX);
        let state = match (job.phase(), self.ended(job)) {
            _ if self.is_received(job) => DetachedState::Receiving,
            (_, Some(Ended::Finished)) => DetachedState::Finished,
            (_, Some(Ended::Cancelled)) => DetachedState::Cancelled,
            (_, Some(Ended::Failed)) => DetachedState::Failed,
            (_, None) => DetachedState::Running,
        };
        let detached_ms = if state == DetachedState::Receiving { 0 } else { job.complete_ms };
        let ended_ms = if state == DetachedState::Running { 0 } else { job.ended_ms };
        DetachedJob {
            name: known.name.clone(),
            label: known.label.clone(),
            state: state.into(),
            items: counts.items,
            done: counts.done,
            failed: counts.failed,
            result: known.result.clone(),
            format: known.format,
            detached_ms,
            ended_ms,
            expires_ms: if ended_ms == 0 { 0 } else { ended_ms.saturating_add(expiry) },
            id: known.id.clone(),
        }
    }

    /// Appends that a job is complete. Returns false if nothing can be written now.
    pub(super) fn complete(&mut self, number: u64, items: u64, now: u64) -> bool {
        let entry = Entry::ItemsEnded { end: items, now_ms: self.now_ms(now) };
        let is_taken = self.store.append(number, entry).is_ok();
        if is_taken {
            self.completing.insert(number);
            self.when_durable(OnDurable::Complete(number));
        }
        is_taken
    }

    /// Appends that a job has ended.
    pub(super) fn end(&mut self, number: u64, cancelled: bool, failure: Option<&Failure>, now: u64, link: &Link) {
        let Some(job) = self.store.job(number) else { return };
        let name = job.name();
        match failure {
            Some(failure) => error!(link.log, job = name, reason = failure.message, "detached job cannot run"),
            None if cancelled => info!(link.log, job = name, "detached job cancelled"),
            None => info!(link.log, job = name, "detached job finished"),
        }
        let ended = Entry::Ended { cancelled, failure, now_ms: self.now_ms(now) };
        if self.store.append(number, ended).is_ok() {
            self.ending.insert(number);
            self.when_durable(OnDurable::Ended(number));
        }
        self.pins.remove(&number);
    }

    /// Notes that a job's completion is acknowledged.
    pub(super) fn note_complete(&mut self, number: u64) {
        self.completing.remove(&number);
    }

    /// Notes that a job's end is acknowledged.
    pub(super) fn note_ended(&mut self, number: u64) {
        self.ending.remove(&number);
    }

    /// Forgets a job that the store has dropped.
    pub(super) fn job_dropped(&mut self, number: u64) {
        self.pins.remove(&number);
        self.completing.remove(&number);
        self.ending.remove(&number);
    }

    /// Begins to find a job's program and to make it durable.
    pub(super) fn pin(&self, job: u64, digest: Digest, link: &Link) {
        let (programs, link) = (self.programs.clone(), link.clone());
        tokio::spawn(async move {
            let pinned = programs.pin(digest).await;
            let _ = link.send(Input::ReadDone(ReadResult::Program(job, pinned))).await;
        });
    }

    /// Keeps a job's program, which is here and durable.
    pub(super) fn add_pin(&mut self, job: u64, program: InUse) {
        self.pins.insert(job, program);
    }

    pub(super) fn is_pinned(&self, job: u64) -> bool {
        self.pins.contains_key(&job)
    }

    /// Schedules an action for when everything appended so far is acknowledged.
    pub(super) fn when_durable(&mut self, then: OnDurable) {
        self.durable.when_durable(then);
    }

    /// Takes the next action whose entries are acknowledged.
    pub(super) fn next_durable(&mut self) -> Option<OnDurable> {
        self.durable.next(self.store.acknowledged())
    }

    /// Hands all entries to the writer if it is idle, and returns whether it was.
    pub(super) fn write_if_idle(&mut self) -> bool {
        let is_idle = self.store.is_idle();
        if is_idle {
            self.write();
        }
        is_idle
    }

    /// Hands all entries to the writer.
    pub(super) fn write(&mut self) {
        let number = self.store.flush();
        self.durable.flushed(number);
    }

    /// Handles the store's progress. Returns the jobs that are incomplete again.
    pub(super) fn progress(&mut self, now: u64, link: &Link) -> Vec<u64> {
        let progress = self.store.progress();
        for warning in progress.warnings {
            warn!(link.log, detail = warning, "journal warning");
        }
        let before = self.failing.as_ref();
        if progress.failed.as_ref() != before.map(|failing| &failing.why) {
            let directory = self.store.location();
            match &progress.failed {
                Some(why) => {
                    error!(link.log, %directory, error = %why, "cannot write to the journal; detached jobs wait");
                }
                None => info!(link.log, %directory, "the journal is writable again"),
            }
            self.failing = progress.failed.map(|why| Failing::new(why, before, now));
        }
        progress.withdrawn.iter().for_each(|job| _ = self.completing.remove(job));
        progress.withdrawn
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Returns when to retry a failed write because a client waits for it; `None` if writing does not fail.
    pub(super) fn try_at(&self) -> Option<u64> {
        self.failing.as_ref().map(|failing| failing.try_at)
    }

    /// Retries the failed write.
    pub(super) fn try_now(&mut self, now: u64) {
        if let Some(failing) = &mut self.failing {
            failing.tried(now);
            self.store.retry_now();
        }
    }

    /// Returns why no job can be detached, if writing has failed for too long.
    pub(super) fn cannot_keep(&self, now: u64) -> Option<Status> {
        let failing = self.failing.as_ref().filter(|failing| failing.has_lasted(now))?;
        let (directory, why) = (self.store.location(), &failing.why);
        Some(Status::failed_precondition(format!(
            "the journal in {directory} cannot be written to: {why}. Nothing of the job is kept; detach it again when there is room"
        )))
    }

    /// Returns the state of the store, for operators.
    pub(super) fn status(&self) -> JournalStatus {
        let Description { bytes, size, aside, damage } = self.store.describe();
        JournalStatus {
            bytes,
            size,
            jobs: self.store.jobs().count() as u64,
            failing: self.failing.as_ref().map(|failing| failing.why.to_string()).unwrap_or_default(),
            aside: aside.into_iter().map(|Aside { name, bytes }| FileAside { name, bytes }).collect(),
            damage,
        }
    }
}
