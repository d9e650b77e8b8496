//! All detached jobs: passes events of one component on to the others, and acts when the store has acknowledged entries.

use farpool_common::log::info;
use farpool_coordinator::ClientId;
use farpool_programs::Digest;
use farpool_proto::v1::ClientMessage;
use farpool_store::Phase;
use tonic::Status;

use super::super::super::clock::nanos;
use super::super::super::link::ReadResult;
use super::super::client::{Client, Role};
use super::super::round::Round;
use super::durable::OnDurable;
use super::intake::{Intake, SessionEnd};
use super::open::Opened;
use super::readers::Readers;
use super::receiving::PoolFacts;
use super::runner::Runner;
use super::tracked_store::TrackedStore;

/// All detached jobs: those that are received, run, and read.
pub(super) struct Jobs {
    pub(super) tracked: TrackedStore,
    pub(super) intake: Intake,
    pub(super) runner: Runner,
    pub(super) readers: Readers,
}

impl Jobs {
    pub(super) fn new(opened: Opened) -> Self {
        let (intake, runner, readers) = (Intake::default(), Runner::default(), Readers::default());
        Self { tracked: TrackedStore::new(opened), intake, runner, readers }
    }

    /// Resumes the jobs that were in the store when it was opened.
    pub(super) fn begin(&mut self, round: &Round) {
        let jobs = || self.tracked.store().jobs();
        let feeding: Vec<u64> = jobs().filter(|job| job.phase() == Phase::Feeding).map(|job| job.number).collect();
        let ended = jobs().filter(|job| job.ended.is_some()).count();
        let running = jobs().count() - feeding.len() - ended;
        let incomplete = feeding.len();
        if incomplete + ended + running > 0 {
            info!(round.link.log, running, ended, incomplete, "detached jobs are in the journal");
        }
        for job in feeding {
            let opening = self.tracked.store().opening_now(job);
            let pool = opening.ok().and_then(|opening| PoolFacts::of(&opening.pool));
            self.intake.expect_rest(job, pool, round.now);
        }
        self.runner.start_all(&self.tracked, round);
    }

    /// Handles messages of a session that detaches or reads a job.
    pub(super) fn handle_messages(
        &mut self,
        round: &mut Round,
        client: &Client,
        id: ClientId,
        messages: Vec<ClientMessage>,
    ) {
        if client.role == Role::Reads {
            return self.readers.handle_messages(&self.tracked, round, client, id, messages);
        }
        let gone = self.intake.handle_messages(&mut self.tracked, round, client, id, messages);
        self.readers.serve_jobs(&self.tracked, round, gone.as_slice());
    }

    /// Handles the end of a session, whatever its reason.
    pub(super) fn leave(&mut self, round: &Round, id: ClientId) {
        self.intake.leave(round.now, id);
        self.readers.leave(id);
    }

    /// Takes the sessions to be ended.
    pub(super) fn take_ends(&mut self) -> Vec<SessionEnd> {
        let mut ends = std::mem::take(&mut self.intake.ends);
        ends.append(&mut self.readers.ends);
        ends
    }

    pub(super) fn program_failed(&mut self, round: &Round, digest: Digest, why: &Status) {
        let gone = self.intake.program_failed(&mut self.tracked, round, digest, why);
        self.readers.serve_jobs(&self.tracked, round, &gone);
    }

    /// Handles data that a task has read.
    pub(super) fn handle_read(&mut self, round: &mut Round, read: ReadResult) {
        let Self { tracked, intake, runner, readers } = self;
        match read {
            ReadResult::Opening(job, opening) => runner.handle_opening(tracked, round, job, opening),
            ReadResult::Items(id, items) => runner.handle_items(tracked, round, id, items),
            ReadResult::Outcomes(id, outcomes) => readers.handle_outcomes(tracked, round, id, outcomes),
            ReadResult::Program(job, pinned) => {
                let gone = intake.handle_program(tracked, round, job, pinned);
                readers.serve_jobs(tracked, round, gone.as_slice());
            }
        }
    }

    /// Returns when the next round is due.
    pub(super) fn next_check(&self, round: &Round) -> Option<u64> {
        let patience = nanos(round.link.limits.detach);
        let away = self.intake.first_away_since().map(|since| since.saturating_add(patience));
        let checks = [self.next_try(), self.runner.next_check(), self.readers.next_check(round.memory.bound)];
        [self.tracked.next_expiry(), away].into_iter().chain(checks).flatten().min()
    }

    /// Does this round's work before the coordinator schedules.
    pub(super) fn prepare_round(&mut self, round: &mut Round, was_written: bool) {
        if was_written {
            self.take_progress(round);
        }
        for job in self.tracked.expire(round.now, &round.link) {
            self.job_dropped(round, job);
        }
        if let Some(since) = round.now.checked_sub(nanos(round.link.limits.detach)) {
            let gone = self.intake.forget_unfinished(&mut self.tracked, round, since);
            self.readers.serve_jobs(&self.tracked, round, &gone);
        }
        // The write is retried for a client before it is refused.
        if self.next_try().is_some_and(|at| at <= round.now) {
            self.tracked.try_now(round.now);
        }
        if self.runner.check(round) {
            self.readers.serve_all(&self.tracked, round);
            self.runner.start_all(&self.tracked, round);
        }
        self.readers.check_if_due(&self.tracked, round);
        self.runner.pause_for_the_store(&self.tracked, round);
        self.runner.feed_all(&mut self.tracked, round);
    }

    /// Hands new entries to the store's writer, if the writer is idle.
    pub(super) fn write_entries(&mut self, round: &mut Round) {
        if self.tracked.write_if_idle() {
            self.handle_durable(round);
        }
    }

    /// Forgets a job that the store has dropped.
    pub(super) fn job_dropped(&mut self, round: &mut Round, number: u64) {
        self.intake.drop_job(&mut self.tracked, round, number);
        self.runner.job_dropped(&mut self.tracked, round, number);
        self.readers.serve_jobs(&self.tracked, round, &[number]);
    }

    /// Returns when to retry a failed write because a client waits for it.
    fn next_try(&self) -> Option<u64> {
        self.tracked.try_at().filter(|_| self.intake.waits_for_store(&self.tracked))
    }

    /// Handles the store's progress.
    fn take_progress(&mut self, round: &mut Round) {
        // Writing may work again by now.
        let refusal = self.tracked.cannot_keep(round.now);
        let withdrawn = self.tracked.progress(round.now, &round.link);
        let drop = |job| self.intake.handle_incomplete_again(&mut self.tracked, round, job, refusal.as_ref());
        let gone: Vec<u64> = withdrawn.into_iter().filter_map(drop).collect();
        self.readers.serve_jobs(&self.tracked, round, &gone);
        self.tracked.write();
        self.handle_durable(round);
        let mut gone = self.intake.refuse_unwritable(&mut self.tracked, round);
        gone.append(&mut self.intake.take_parked(&mut self.tracked, round));
        self.readers.serve_jobs(&self.tracked, round, &gone);
    }

    /// Carries out the actions that waited for an acknowledgement of the store.
    fn handle_durable(&mut self, round: &mut Round) {
        let Self { tracked, intake, runner, readers } = self;
        let mut changed = Vec::new();
        while let Some(then) = tracked.next_durable() {
            match then {
                OnDurable::Acknowledge(id, events) => {
                    round.coordinator.client_acknowledged(id, events, round.now, &mut round.out);
                    changed.extend(runner.job_of(id));
                }
                OnDurable::Give(id) => runner.give_noted(tracked, round, id),
                OnDurable::Received(job, id, items, bytes) => intake.report_durable(job, id, items, bytes),
                OnDurable::Withdrawn(id) => intake.report_withdrawn(id),
                OnDurable::Complete(job) => {
                    if intake.handle_complete(tracked, round, job) {
                        runner.start(tracked, round, job);
                        readers.serve_jobs(tracked, round, &[job]);
                    }
                }
                OnDurable::Ended(job) => {
                    tracked.note_ended(job);
                    changed.push(job);
                    runner.handle_ended(tracked, round, job);
                }
                OnDurable::Answer(reply) => drop(reply.send(Ok(()))),
            }
        }
        readers.serve_jobs(tracked, round, &changed);
    }
}
