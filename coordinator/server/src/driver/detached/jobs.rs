//! All detached jobs. Here is what follows for one component from an event of another, and what follows when the store has acknowledged
//! something.

use farpool_common::log::info;
use farpool_coordinator::ClientId;
use farpool_programs::Digest;
use farpool_proto::v1::ClientMessage;
use farpool_store::Phase;
use tonic::Status;

use super::super::super::clock::nanos;
use super::super::super::link::WasRead;
use super::super::client::{Client, Role};
use super::super::round::Round;
use super::durable::Then;
use super::intake::{Intake, SessionEnd};
use super::keeper::Keeper;
use super::open::Opened;
use super::player::Player;
use super::readers::Readers;

/// All detached jobs: those that arrive, run, and are read.
pub(super) struct Jobs {
    pub(super) keeper: Keeper,
    pub(super) intake: Intake,
    pub(super) player: Player,
    pub(super) readers: Readers,
}

impl Jobs {
    pub(super) fn new(opened: Opened) -> Self {
        let (intake, player, readers) = (Intake::default(), Player::default(), Readers::default());
        Self { keeper: Keeper::new(opened), intake, player, readers }
    }

    /// Resumes the jobs that were in the store when it was opened.
    pub(super) fn begin(&mut self, round: &Round) {
        let jobs = || self.keeper.store().jobs();
        let feeding: Vec<u64> = jobs().filter(|job| job.phase() == Phase::Feeding).map(|job| job.number).collect();
        let ended = jobs().filter(|job| job.ended.is_some()).count();
        let running = jobs().count() - feeding.len() - ended;
        let incomplete = feeding.len();
        if incomplete + ended + running > 0 {
            info!(round.link.log, running, ended, incomplete, "detached jobs are in the journal");
        }
        feeding.into_iter().for_each(|job| self.intake.expect_rest(job, round.now));
        self.player.start_all(&self.keeper, round);
    }

    /// Handles messages of a session that detaches or reads a job.
    pub(super) fn says(&mut self, round: &mut Round, client: &Client, id: ClientId, messages: Vec<ClientMessage>) {
        if client.role == Role::Reads {
            return self.readers.says(&self.keeper, round, client, id, messages);
        }
        let gone = self.intake.says(&mut self.keeper, round, client, id, messages);
        self.readers.serve_jobs(&self.keeper, round, gone.as_slice());
    }

    /// Handles the end of a session, whatever its reason.
    pub(super) fn leave(&mut self, round: &Round, id: ClientId) {
        self.intake.leave(round.now, id);
        self.readers.leave(id);
    }

    /// Takes the sessions that are to be ended.
    pub(super) fn take_ends(&mut self) -> Vec<SessionEnd> {
        let mut ends = std::mem::take(&mut self.intake.ends);
        ends.append(&mut self.readers.ends);
        ends
    }

    pub(super) fn program_failed(&mut self, round: &Round, digest: Digest, why: &Status) {
        let gone = self.intake.program_failed(&mut self.keeper, round, digest, why);
        self.readers.serve_jobs(&self.keeper, round, &gone);
    }

    /// Handles what a task has read.
    pub(super) fn was_read(&mut self, round: &mut Round, read: WasRead) {
        let Self { keeper, intake, player, readers } = self;
        match read {
            WasRead::Opening(job, opening) => player.opening_was_read(keeper, round, job, opening),
            WasRead::Items(id, items) => player.items_were_read(keeper, round, id, items),
            WasRead::Outcomes(id, outcomes) => readers.outcomes_were_read(keeper, round, id, outcomes),
            WasRead::Program(job, pinned) => {
                let gone = intake.program_was_read(keeper, round, job, pinned);
                readers.serve_jobs(keeper, round, gone.as_slice());
            }
        }
    }

    /// Returns when the next round is due.
    pub(super) fn next_look(&self, round: &Round) -> Option<u64> {
        let patience = nanos(round.link.limits.detach);
        let away = self.intake.first_away_since().map(|since| since.saturating_add(patience));
        let looks = [self.next_try(), self.player.next_look(), self.readers.next_look(round.memory.bound)];
        [self.keeper.next_expiry(), away].into_iter().chain(looks).flatten().min()
    }

    /// Does what each round has to do before the coordinator schedules.
    pub(super) fn tend(&mut self, round: &mut Round, was_written: bool) {
        if was_written {
            self.take_progress(round);
        }
        for job in self.keeper.expire(round.now, &round.link) {
            self.has_gone(round, job);
        }
        if let Some(since) = round.now.checked_sub(nanos(round.link.limits.detach)) {
            let gone = self.intake.forget_unfinished(&mut self.keeper, round, since);
            self.readers.serve_jobs(&self.keeper, round, &gone);
        }
        // No client is refused before the write was retried for it.
        if self.next_try().is_some_and(|at| at <= round.now) {
            self.keeper.try_now(round.now);
        }
        if self.player.look(round) {
            self.readers.serve_all(&self.keeper, round);
            self.player.start_all(&self.keeper, round);
        }
        self.readers.tend(&self.keeper, round);
        self.player.pause_for_the_store(&self.keeper, round);
        self.player.feed_all(&mut self.keeper, round);
    }

    /// Hands new entries to the store's writer, if that is idle.
    pub(super) fn write_down(&mut self, round: &mut Round) {
        if self.keeper.write_if_idle() {
            self.follow(round);
        }
    }

    /// Forgets a job that the store has dropped.
    pub(super) fn has_gone(&mut self, round: &mut Round, number: u64) {
        self.intake.drop_job(&mut self.keeper, round, number);
        self.player.has_gone(&mut self.keeper, round, number);
        self.readers.serve_jobs(&self.keeper, round, &[number]);
    }

    /// Returns when to retry a failed write because a client waits for it.
    fn next_try(&self) -> Option<u64> {
        self.keeper.try_at().filter(|_| self.intake.waits_for_store(&self.keeper))
    }

    /// Handles the store's progress.
    fn take_progress(&mut self, round: &mut Round) {
        // Writing may work again by now.
        let refusal = self.keeper.cannot_keep(round.now);
        let withdrawn = self.keeper.progress(round.now, &round.link);
        let drop = |job| self.intake.is_incomplete_again(&mut self.keeper, round, job, refusal.as_ref());
        let gone: Vec<u64> = withdrawn.into_iter().filter_map(drop).collect();
        self.readers.serve_jobs(&self.keeper, round, &gone);
        self.keeper.write();
        self.follow(round);
        let mut gone = self.intake.refuse_what_cannot_be_kept(&mut self.keeper, round);
        gone.append(&mut self.intake.take_parked(&mut self.keeper, round));
        self.readers.serve_jobs(&self.keeper, round, &gone);
    }

    /// Does what waited for an acknowledgement of the store.
    fn follow(&mut self, round: &mut Round) {
        let Self { keeper, intake, player, readers } = self;
        let mut news = Vec::new();
        while let Some(then) = keeper.next_that_follows() {
            match then {
                Then::Acknowledge(id, heard) => {
                    round.coordinator.client_acknowledged(id, heard, round.now, &mut round.out);
                    news.extend(player.job_of(id));
                }
                Then::Give(id) => player.was_noted(keeper, round, id),
                Then::Received(job, id, items, bytes) => intake.has_received(job, id, items, bytes),
                Then::Withdrawn(id) => intake.was_withdrawn(id),
                Then::Complete(job) => {
                    if intake.is_complete(keeper, round, job) {
                        player.start(keeper, round, job);
                        readers.serve_jobs(keeper, round, &[job]);
                    }
                }
                Then::Ended(job) => {
                    keeper.has_ended(job);
                    news.push(job);
                    player.has_ended(keeper, round, job);
                }
                Then::Answer(reply) => drop(reply.send(Ok(()))),
            }
        }
        readers.serve_jobs(keeper, round, &news);
    }
}
