//! What follows for the others from what happens to one: the order of a round, and what is done when the store has acknowledged
//! something.

use farpool_common::log::info;
use farpool_programs::Digest;
use farpool_proto::v1::ClientMessage;
use farpool_store::Phase;
use tonic::Status;

use super::super::super::clock::nanos;
use super::super::super::link::{Says, StreamId, WasRead};
use super::super::round::Round;
use super::durable::Then;
use super::intake::{DetachJoins, Intake};
use super::keeper::Keeper;
use super::open::Opened;
use super::player::Player;
use super::readers::Readers;

/// All detached jobs: those that come in, run, and are read.
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

    /// Goes on with what was in the store when it was opened.
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

    pub(super) fn detach_joins(&mut self, round: &mut Round, joins: DetachJoins) {
        let gone = self.intake.joins(&mut self.keeper, round, joins);
        self.readers.serve_jobs(&self.keeper, round, gone.as_slice());
    }

    pub(super) fn detach_says(&mut self, round: &mut Round, says: Says<ClientMessage, StreamId>) {
        let gone = self.intake.says(&mut self.keeper, round, says);
        self.readers.serve_jobs(&self.keeper, round, gone.as_slice());
    }

    pub(super) fn program_failed(&mut self, round: &Round, digest: Digest, why: &Status) {
        let gone = self.intake.program_failed(&mut self.keeper, round, digest, why);
        self.readers.serve_jobs(&self.keeper, round, &gone);
    }

    /// What a task has read is here.
    pub(super) fn was_read(&mut self, round: &mut Round, read: WasRead) {
        let Self { keeper, intake, player, readers } = self;
        match read {
            WasRead::Opening(job, opening) => player.opening_was_read(keeper, round, job, opening),
            WasRead::Items(id, items) => player.items_were_read(keeper, round, id, items),
            WasRead::Outcomes(stream, outcomes) => readers.outcomes_were_read(keeper, round, stream, outcomes),
            WasRead::Program(job, pinned) => {
                let gone = intake.program_was_read(keeper, round, job, pinned);
                readers.serve_jobs(keeper, round, gone.as_slice());
            }
        }
    }

    /// When to go round at the latest.
    pub(super) fn next_look(&self, round: &Round) -> Option<u64> {
        let patience = nanos(round.link.limits.detach);
        let away = self.intake.first_away_since().map(|since| since.saturating_add(patience));
        let looks = [self.next_try(), self.player.next_look(), self.readers.next_look(round.memory.bound)];
        [self.keeper.next_expiry(), away].into_iter().chain(looks).flatten().min()
    }

    /// What is to be done in each round before the coordinator schedules.
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
        // Nobody is refused before it was tried for him, or until it is tried by itself.
        if self.next_try().is_some_and(|at| at <= round.now) {
            self.keeper.try_now(round.now);
        }
        if self.player.look(round) {
            self.readers.serve_all(&self.keeper, round);
            self.player.start_all(&self.keeper, round);
        }
        self.intake.give_turns(round.memory.is_full);
        self.readers.tend(&self.keeper, round);
        self.player.pause_for_the_store(&self.keeper, round);
        self.player.feed_all(&mut self.keeper, round);
    }

    /// Gives the store what there is, if it writes nothing else.
    pub(super) fn write_down(&mut self, round: &mut Round) {
        if self.keeper.write_if_idle() {
            self.follow(round);
        }
    }

    /// The store does not have a job any more.
    pub(super) fn has_gone(&mut self, round: &mut Round, number: u64) {
        self.intake.drop_job(&mut self.keeper, round, number);
        self.player.has_gone(&mut self.keeper, round, number);
        self.readers.serve_jobs(&self.keeper, round, &[number]);
    }

    /// When it is to be tried again to write, since somebody waits to be told.
    fn next_try(&self) -> Option<u64> {
        self.keeper.try_at().filter(|_| self.intake.waits_for_store(&self.keeper))
    }

    /// Takes note of what was written.
    fn take_progress(&mut self, round: &mut Round) {
        // It can be mended by now.
        let refusal = self.keeper.cannot_keep(round.now);
        let withdrawn = self.keeper.progress(round.now, &round.link);
        if let Some(why) = refusal {
            let refuse = |job| self.intake.refuse(&mut self.keeper, round, job, why.clone());
            let gone: Vec<u64> = withdrawn.into_iter().filter_map(refuse).collect();
            self.readers.serve_jobs(&self.keeper, round, &gone);
        }
        self.keeper.write();
        self.follow(round);
        let mut gone = self.intake.refuse_what_cannot_be_kept(&mut self.keeper, round);
        gone.append(&mut self.intake.take_parked(&mut self.keeper, round));
        self.readers.serve_jobs(&self.keeper, round, &gone);
    }

    /// Does what follows from what is acknowledged.
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
                Then::Received(job, stream, items) => intake.has_received(job, stream, items),
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
