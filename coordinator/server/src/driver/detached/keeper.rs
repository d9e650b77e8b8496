//! The store, as the loop has it: with what was appended and is not acknowledged, with what follows when it is, and with the programs of its
//! jobs.

use std::collections::{BTreeMap, BTreeSet};

use farpool_common::log::{error, info, warn};
use farpool_programs::{Digest, InUse};
use farpool_proto::v1::{DetachedJob, DetachedState, Failure, FileAside, JournalStatus};
use farpool_store::{Aside, Description, Ended, Entry, Job, JobStore, Phase};
use tonic::Status;

use super::super::super::link::{Input, Link, WasRead};
use super::super::super::programs::Programs;
use super::durable::{Durable, Then};
use super::failing::Failing;
use super::open::Opened;

pub(super) struct Keeper {
    store: Box<dyn JobStore>,
    programs: Programs,
    /// Programs of jobs that have not ended: they are not removed.
    pins: BTreeMap<u64, InUse>,
    /// When the server's clock was at 0, in ms since 1970.
    started_ms: u64,
    /// Jobs of which the store has that they are complete, or have ended, and has not acknowledged it.
    completing: BTreeSet<u64>,
    ending: BTreeSet<u64>,
    durable: Durable,
    failing: Option<Failing>,
}

impl Keeper {
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

    /// The time, in ms since 1970, when the server's clock is there.
    pub(super) fn now_ms(&self, now: u64) -> u64 {
        self.started_ms + now / 1_000_000
    }

    /// When jobs expire next, on the server's clock. While nothing can be written none does.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        let at = self.store.next_expiry().filter(|_| self.failing.is_none())?;
        Some(at.saturating_sub(self.started_ms).saturating_mul(1_000_000))
    }

    /// Drops jobs that ended long ago; returns which.
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

    /// Whether a job is being detached: it may be complete, but that is not acknowledged.
    pub(super) fn is_received(&self, job: &Job) -> bool {
        job.phase() == Phase::Feeding || self.completing.contains(&job.number)
    }

    /// How a job has ended, if that is acknowledged.
    pub(super) fn ended(&self, job: &Job) -> Option<Ended> {
        job.ended.filter(|_| !self.ending.contains(&job.number))
    }

    /// Says how a job is.
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

    /// Notes that all items of a job have come, if that can be written now; more follows when it is acknowledged.
    pub(super) fn complete(&mut self, number: u64, items: u64, now: u64) -> bool {
        let entry = Entry::ItemsEnded { end: items, now_ms: self.now_ms(now) };
        let is_taken = self.store.append(number, entry).is_ok();
        if is_taken {
            self.completing.insert(number);
            self.follows(Then::Complete(number));
        }
        is_taken
    }

    /// Notes that a job has ended; more follows when that is acknowledged.
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
            self.follows(Then::Ended(number));
        }
        self.pins.remove(&number);
    }

    /// That a job is complete is acknowledged.
    pub(super) fn is_complete(&mut self, number: u64) {
        self.completing.remove(&number);
    }

    /// That a job has ended is acknowledged.
    pub(super) fn has_ended(&mut self, number: u64) {
        self.ending.remove(&number);
    }

    /// The store does not have a job any more.
    pub(super) fn has_gone(&mut self, number: u64) {
        self.pins.remove(&number);
        self.completing.remove(&number);
        self.ending.remove(&number);
    }

    /// Has a job's program looked for, and made durable.
    pub(super) fn pin(&self, job: u64, digest: Digest, link: &Link) {
        let (programs, link) = (self.programs.clone(), link.clone());
        tokio::spawn(async move {
            let pinned = programs.pin(digest).await;
            let _ = link.send(Input::WasRead(WasRead::Program(job, pinned))).await;
        });
    }

    /// A job's program is here, and stays.
    pub(super) fn has_pinned(&mut self, job: u64, program: InUse) {
        self.pins.insert(job, program);
    }

    pub(super) fn is_pinned(&self, job: u64) -> bool {
        self.pins.contains_key(&job)
    }

    /// This follows when all that was appended by now is acknowledged.
    pub(super) fn follows(&mut self, then: Then) {
        self.durable.follows(then);
    }

    /// The next thing that follows by now.
    pub(super) fn next_that_follows(&mut self) -> Option<Then> {
        self.durable.next(self.store.acknowledged())
    }

    /// Has everything written, if nothing is being written; says whether it has.
    pub(super) fn write_if_idle(&mut self) -> bool {
        let is_idle = self.store.is_idle();
        if is_idle {
            self.write();
        }
        is_idle
    }

    /// Has everything written.
    pub(super) fn write(&mut self) {
        let number = self.store.flush();
        self.durable.flushed(number);
    }

    /// Takes note of what was written; returns the jobs that are incomplete again.
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

    /// When it may be tried again to write, since somebody waits; none: there is nothing to try.
    pub(super) fn try_at(&self) -> Option<u64> {
        self.failing.as_ref().map(|failing| failing.try_at)
    }

    /// Tries again to write.
    pub(super) fn try_now(&mut self, now: u64) {
        if let Some(failing) = &mut self.failing {
            failing.tried(now);
            self.store.try_again();
        }
    }

    /// What those are told who detach jobs, if nothing can be written and has not been for too long.
    pub(super) fn cannot_keep(&self, now: u64) -> Option<Status> {
        let failing = self.failing.as_ref().filter(|failing| failing.is_for_long(now))?;
        let (directory, why) = (self.store.location(), &failing.why);
        Some(Status::failed_precondition(format!(
            "the journal in {directory} cannot be written to: {why}. Nothing of the job is kept; detach it again when there is room"
        )))
    }

    /// How the store is, for operators.
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
