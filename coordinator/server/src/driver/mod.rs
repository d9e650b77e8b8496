//! The loop that owns the coordinator.
//!
//! A round handles all inputs that have arrived, lets the coordinator schedule once, and puts its messages into the sessions' queues.
//! Nothing here blocks, and nothing waits for a peer. The components own their state, and each round asks them in the same order:
//! see [`Driver::go_round`].

mod acks;
mod agent;
mod agents;
mod away;
mod client;
mod clients;
mod company;
mod detached;
mod drain;
mod memory;
mod operators;
mod partials;
mod peers;
mod programs;
mod round;
mod session;
mod slow_readers;
mod status;

use std::future::{Future, ready};
use std::pin::pin;

use farpool_common::log::info;
use farpool_coordinator::{Config, Coordinator, Outbox};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tonic_health::ServingStatus;

use super::clock::Clock;
use super::link::{Input, Link};
use super::refusal::shutting_down;
use super::services::Health;
use super::settings::Settings;
use agents::Agents;
use away::Away;
use clients::Clients;
use detached::Detached;
pub(super) use detached::Opened;
use drain::Drain;
use memory::Memory;
use operators::Asked;
use programs::Programs;
use round::Round;
use slow_readers::SlowReaders;

/// How many inputs one round handles at most, and about how many messages. The rest wait for the next round.
const ROUND: usize = 256;
const ROUND_MESSAGES: usize = 8192;

pub(super) struct Driver {
    received: mpsc::Receiver<Input>,
    health: Health,
    clock: Clock,
    /// When the last input arrived.
    heard_at: u64,
    round: Round,
    clients: Clients,
    agents: Agents,
    away: Away,
    memory: Memory,
    slow_readers: SlowReaders,
    programs: Programs,
    detached: Detached,
    asked: Asked,
    drain: Option<Drain>,
}

impl Driver {
    pub(super) fn new(
        settings: &Settings,
        link: Link,
        received: mpsc::Receiver<Input>,
        health: Health,
        opened: Option<Opened>,
    ) -> Self {
        let recovery = settings.heartbeat_timeout;
        let (window, payload_limit) = (settings.window, settings.max_result());
        let mut config = Config::default();
        config.core.check = settings.limits.check;
        (config.window, config.payload_limit) = (window, payload_limit);
        (config.id, config.recovery) = (Some(settings.id), recovery);
        let memory = Memory::new(settings.memory, settings.heartbeat_timeout);
        let (coordinator, programs) = (Coordinator::new(config), Programs::new(&link.limits));
        let (out, room) = (Outbox::default(), memory.room());
        Self {
            received,
            health,
            clock: Clock::start(),
            heard_at: 0,
            round: Round { now: 0, id: settings.id, coordinator, out, link, memory: room, drains: false },
            clients: Clients::new(settings),
            agents: Agents::new(settings),
            away: Away::new(settings.reconnect_grace),
            memory,
            slow_readers: SlowReaders::default(),
            programs,
            detached: Detached::new(opened),
            asked: Asked::default(),
            drain: None,
        }
    }

    /// Runs until `shutdown` has completed and all pools have ended.
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let (mut shutdown, mut inputs) = (pin!(shutdown), Vec::with_capacity(ROUND));
        let drained = self.round.link.drained.clone();
        let wakeup = self.detached.wakeup();
        self.detached.begin(&self.round);
        // Setting the timer to an earlier time costs a system call, and each call of a client moves the next deadline. So it is left
        // alone if it rings early enough, and may ring for nothing.
        let (mut timer, mut rings_at) = (pin!(sleep_until(self.clock.instant(0))), None);
        while !self.is_over() {
            if let Some(next) = self.next_timer()
                && rings_at.is_none_or(|at| next < at)
            {
                rings_at = Some(next);
                timer.as_mut().reset(self.clock.instant(next));
            }
            let (mut has_drained, mut was_written) = (false, false);
            tokio::select! {
                // Inputs come last: they may never run out.
                biased;
                () = &mut shutdown, if self.drain.is_none() => self.begin_to_drain().await,
                () = drained.notified() => has_drained = true,
                () = &mut timer, if rings_at.is_some() => rings_at = None,
                () = Detached::written(wakeup.as_ref()) => was_written = true,
                () = ready(()), if !inputs.is_empty() => {}
                _ = self.received.recv_many(&mut inputs, ROUND) => {}
                () = ready(()), if self.detached.has_more() => {}
            }
            self.round.now = self.clock.now();
            if !inputs.is_empty() {
                self.heard_at = self.round.now;
            }
            inputs.drain(..of_one_round(&inputs)).for_each(|input| self.take_in(input));
            self.go_round(has_drained, was_written);
        }
        self.detached.dismiss();
        info!(self.round.link.log, "shut down");
        self.clients.dismiss(&shutting_down());
        self.agents.dismiss(&shutting_down());
    }

    /// Does the rest of a round, in this order, after its inputs were handled.
    fn go_round(&mut self, has_drained: bool, was_written: bool) {
        if has_drained {
            self.look_at_queues();
        }
        self.end_those_away_for_too_long();
        self.agents.tend_company(self.round.now);
        self.tend_memory();
        self.tend_slow_readers();
        self.agents.deaf(&self.round).into_iter().for_each(|id| self.end_agent(id, Err(agents::does_not_read())));
        self.tend_large_messages();
        if self.programs.next_timer().is_some_and(|timer| timer <= self.round.now) {
            let (programs, askable, round) = self.programs();
            programs.tend(round, &askable);
        }
        self.detached.tend(&mut self.round, was_written);
        self.detached.lend(&mut self.round);
        if let Some(drain) = &mut self.drain {
            drain.tend(&self.round, &self.clients);
        }
        self.answer_those_who_asked();
        self.round.coordinator.schedule(self.round.now, &mut self.round.out);
        self.send();
        self.detached.write_down(&mut self.round);
        self.end_detached();
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::ClientSays(says) => self.client_says(says),
            Input::AgentSays(says) => self.agent_says(says),
            Input::ClientJoins(joins) => self.client_joins(joins),
            Input::ClientResumes(resumes) => self.client_resumes(resumes),
            Input::AgentJoins(joins) => self.agent_joins(joins),
            Input::AgentResumes(resumes) => self.agent_resumes(resumes),
            Input::WasRead(read) => self.detached.was_read(&mut self.round, read),
            Input::Asked(question) => self.answer(question),
            Input::ProgramsCame(reply) => {
                let _ = reply.send(self.programs.came());
            }
            Input::ProgramNeeded(digest, came, reply) => {
                let (programs, askable, round) = self.programs();
                programs.needed(round, &askable, (digest, came), reply);
            }
            Input::UploadBegins(digest, reply) => self.begin_upload(digest, reply),
            Input::UploadEnds(digest, outcome) => self.end_upload(digest, outcome),
        }
    }

    /// Returns when the next round is due if no input arrives.
    fn next_timer(&self) -> Option<u64> {
        let now = self.round.now;
        let timers = [
            self.next_look(),
            self.round.coordinator.next_deadline(),
            self.away.next_look(),
            self.agents.next_look(now),
            self.memory.next_look(now),
            self.slow_readers.next_look(now),
            self.asked.next_look(),
            self.programs.next_timer(),
            self.detached.next_look(&self.round),
            self.drain.as_ref().map(Drain::next_look),
        ];
        timers.into_iter().flatten().min()
    }

    /// Returns when to schedule again without any input: while slots are idle, chunks that take too long are taken back. The longer no
    /// input arrives, the rarer that is.
    fn next_look(&self) -> Option<u64> {
        let (look, now) = (self.round.coordinator.next_look()?, self.round.now);
        Some(look.max(now + (now - self.heard_at) / 4))
    }

    /// Puts the coordinator's messages into the queues of their receivers, all messages of a receiver at once.
    fn send(&mut self) {
        while !(self.round.out.to_clients.is_empty() && self.round.out.to_agents.is_empty()) {
            // Clients come first: they wait for results. A queue that becomes too long pauses its pool, which may lead to more messages.
            self.send_to_clients();
            self.send_to_agents();
            self.detached.hear_pools(&mut self.round);
        }
    }

    /// Returns whether the server is drained: nothing is left to do.
    fn is_over(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.is_over(&self.round, &self.clients, &self.detached))
    }

    async fn begin_to_drain(&mut self) {
        (self.drain, self.round.drains) = (Some(Drain::default()), true);
        self.health.say(ServingStatus::NotServing).await;
    }
}

/// Returns how many of these inputs one round handles: at least one, if there is one.
fn of_one_round(inputs: &[Input]) -> usize {
    let mut messages = 0;
    let fits = |input: &&Input| {
        let before = messages;
        messages += input.messages();
        before < ROUND_MESSAGES
    };
    inputs.iter().take_while(fits).count()
}
