//! What follows for the others from what happens to one: the order of a round, and what is done when the store has acknowledged
//! something.

use std::time::Duration;

use farpool_common::log::info;
use farpool_programs::Digest;
use farpool_proto::v1::ClientMessage;
use farpool_store::Phase;
use tonic::Status;

use super::super::super::clock::nanos;
use super::super::super::link::{Says, StreamId, WasRead};
use super::durable::Then;
use super::intake::{DetachJoins, Intake};
use super::keeper::Keeper;
use super::open::Opened;
use super::player::Player;
use super::readers::Readers;
use super::turn::Turn;

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
    pub(super) fn begin(&mut self, turn: &Turn<'_>) {
        let jobs = || self.keeper.store().jobs();
        let feeding: Vec<u64> = jobs().filter(|job| job.phase() == Phase::Feeding).map(|job| job.number).collect();
        let ended = jobs().filter(|job| job.ended.is_some()).count();
        let running = jobs().count() - feeding.len() - ended;
        let incomplete = feeding.len();
        if incomplete + ended + running > 0 {
            info!(turn.link.log, running, ended, incomplete, "detached jobs are in the journal");
        }
        feeding.into_iter().for_each(|job| self.intake.expect_rest(job, turn.now));
        self.player.start_all(&self.keeper, turn);
    }

    pub(super) fn detach_joins(&mut self, turn: &mut Turn<'_>, joins: DetachJoins) {
        let gone = self.intake.joins(&mut self.keeper, turn, joins);
        self.readers.serve_jobs(&self.keeper, turn, gone.as_slice());
    }

    pub(super) fn detach_says(&mut self, turn: &mut Turn<'_>, says: Says<ClientMessage, StreamId>) {
        let gone = self.intake.says(&mut self.keeper, turn, says);
        self.readers.serve_jobs(&self.keeper, turn, gone.as_slice());
    }

    pub(super) fn program_failed(&mut self, turn: &Turn<'_>, digest: Digest, why: &Status) {
        let gone = self.intake.program_failed(&mut self.keeper, turn, digest, why);
        self.readers.serve_jobs(&self.keeper, turn, &gone);
    }

    /// What a task has read is here.
    pub(super) fn was_read(&mut self, turn: &mut Turn<'_>, read: WasRead) {
        let Self { keeper, intake, player, readers } = self;
        match read {
            WasRead::Opening(job, opening) => player.opening_was_read(keeper, turn, job, opening),
            WasRead::Items(id, items) => player.items_were_read(keeper, turn, id, items),
            WasRead::Outcomes(stream, outcomes) => readers.outcomes_were_read(keeper, turn, stream, outcomes),
            WasRead::Program(job, pinned) => {
                let gone = intake.program_was_read(keeper, turn, job, pinned);
                readers.serve_jobs(keeper, turn, gone.as_slice());
            }
        }
    }

    /// When to go round at the latest. `patience`: how long a client has to go on with detaching; `memory`: how much there may be.
    pub(super) fn next_look(&self, patience: Duration, memory: u64) -> Option<u64> {
        let away = self.intake.first_away_since().map(|since| since.saturating_add(nanos(patience)));
        let looks = [self.next_try(), self.player.next_look(), self.readers.next_look(memory)];
        [self.keeper.next_expiry(), away].into_iter().chain(looks).flatten().min()
    }

    /// What is to be done in each round before the coordinator schedules.
    pub(super) fn tend(&mut self, turn: &mut Turn<'_>, was_written: bool) {
        if was_written {
            self.take_progress(turn);
        }
        for job in self.keeper.expire(turn.now, turn.link) {
            self.has_gone(turn, job);
        }
        if let Some(since) = turn.now.checked_sub(nanos(turn.link.limits.detach)) {
            let gone = self.intake.forget_unfinished(&mut self.keeper, turn, since);
            self.readers.serve_jobs(&self.keeper, turn, &gone);
        }
        // Nobody is refused before it was tried for him, or until it is tried by itself.
        if self.next_try().is_some_and(|at| at <= turn.now) {
            self.keeper.try_now(turn.now);
        }
        if self.player.look(turn) {
            self.readers.serve_all(&self.keeper, turn);
            self.player.start_all(&self.keeper, turn);
        }
        self.intake.give_turns(turn.memory.is_full);
        self.readers.tend(&self.keeper, turn);
        self.player.pause_for_the_store(&self.keeper, turn);
        self.player.feed_all(&mut self.keeper, turn);
    }

    /// Gives the store what there is, if it writes nothing else.
    pub(super) fn write_down(&mut self, turn: &mut Turn<'_>) {
        if self.keeper.write_if_idle() {
            self.follow(turn);
        }
    }

    /// The store does not have a job any more.
    pub(super) fn has_gone(&mut self, turn: &mut Turn<'_>, number: u64) {
        self.intake.drop_job(&mut self.keeper, turn, number);
        self.player.has_gone(&mut self.keeper, turn, number);
        self.readers.serve_jobs(&self.keeper, turn, &[number]);
    }

    /// When it is to be tried again to write, since somebody waits to be told.
    fn next_try(&self) -> Option<u64> {
        self.keeper.try_at().filter(|_| self.intake.waits_for_store(&self.keeper))
    }

    /// Takes note of what was written.
    fn take_progress(&mut self, turn: &mut Turn<'_>) {
        // It can be mended by now.
        let refusal = self.keeper.cannot_keep(turn.now);
        let withdrawn = self.keeper.progress(turn.now, turn.link);
        if let Some(why) = refusal {
            let refuse = |job| self.intake.refuse(&mut self.keeper, turn, job, why.clone());
            let gone: Vec<u64> = withdrawn.into_iter().filter_map(refuse).collect();
            self.readers.serve_jobs(&self.keeper, turn, &gone);
        }
        self.keeper.write();
        self.follow(turn);
        let mut gone = self.intake.refuse_what_cannot_be_kept(&mut self.keeper, turn);
        gone.append(&mut self.intake.take_parked(&mut self.keeper, turn));
        self.readers.serve_jobs(&self.keeper, turn, &gone);
    }

    /// Does what follows from what is acknowledged.
    fn follow(&mut self, turn: &mut Turn<'_>) {
        let Self { keeper, intake, player, readers } = self;
        let mut news = Vec::new();
        while let Some(then) = keeper.next_that_follows() {
            match then {
                Then::Acknowledge(id, heard) => {
                    turn.coordinator.client_acknowledged(id, heard, turn.now, turn.out);
                    news.extend(player.job_of(id));
                }
                Then::Give(id) => player.was_noted(keeper, turn, id),
                Then::Received(job, stream, items) => intake.has_received(job, stream, items),
                Then::Complete(job) => {
                    if intake.is_complete(keeper, turn, job) {
                        player.start(keeper, turn, job);
                        readers.serve_jobs(keeper, turn, &[job]);
                    }
                }
                Then::Ended(job) => {
                    keeper.has_ended(job);
                    news.push(job);
                    player.has_ended(keeper, turn, job);
                }
                Then::Answer(reply) => drop(reply.send(Ok(()))),
            }
        }
        readers.serve_jobs(keeper, turn, &news);
    }
}
