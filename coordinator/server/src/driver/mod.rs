//! The loop that owns the coordinator.
//!
//! A round handles all inputs that have arrived, lets the coordinator schedule once, and puts its messages into the sessions' queues.
//! Nothing here blocks or waits for a peer. The components own their state, and each round calls them in the same order: see
//! [`Driver::finish_round`].

mod acks;
mod agent;
mod agents;
mod client;
mod clients;
mod delayed;
mod detached;
mod disconnected;
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
use clients::Clients;
use detached::Detached;
pub(super) use detached::Opened;
use disconnected::DisconnectedSessions;
use drain::Drain;
use memory::Memory;
use operators::PendingRequests;
use programs::WantedPrograms;
use round::Round;
use slow_readers::SlowReaders;

/// The most inputs that one round handles, and about the most messages. The rest wait for the next round.
const ROUND: usize = 256;
const ROUND_MESSAGES: usize = 8192;

pub(super) struct Driver {
    received: mpsc::Receiver<Input>,
    health: Health,
    clock: Clock,
    /// When the last input arrived.
    last_input_at: u64,
    round: Round,
    clients: Clients,
    agents: Agents,
    disconnected: DisconnectedSessions,
    memory: Memory,
    slow_readers: SlowReaders,
    programs: WantedPrograms,
    detached: Detached,
    pending: PendingRequests,
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
        let (coordinator, programs) = (Coordinator::new(config), WantedPrograms::new(&link.limits));
        let (out, room) = (Outbox::default(), memory.room());
        Self {
            received,
            health,
            clock: Clock::start(),
            last_input_at: 0,
            round: Round { now: 0, id: settings.id, coordinator, out, link, memory: room, drains: false },
            clients: Clients::new(settings),
            agents: Agents::new(settings),
            disconnected: DisconnectedSessions::new(settings.reconnect_grace),
            memory,
            slow_readers: SlowReaders::default(),
            programs,
            detached: Detached::new(opened),
            pending: PendingRequests::default(),
            drain: None,
        }
    }

    /// Runs until `shutdown` has completed and all pools have ended.
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let (mut shutdown, mut inputs) = (pin!(shutdown), Vec::with_capacity(ROUND));
        let drained = self.round.link.drained.clone();
        let wakeup = self.detached.wakeup();
        self.detached.begin(&self.round);
        // Setting the timer to an earlier time costs a system call, and each call of a client moves the next deadline. So it is left alone
        // if it fires early enough, and may fire for nothing.
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
                // Inputs are last: they may never run out.
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
                self.last_input_at = self.round.now;
            }
            inputs.drain(..of_one_round(&inputs)).for_each(|input| self.handle_input(input));
            self.finish_round(has_drained, was_written);
        }
        self.detached.dismiss();
        info!(self.round.link.log, "shut down");
        self.clients.dismiss(&shutting_down());
        self.agents.dismiss(&shutting_down());
    }

    /// Does the rest of a round, in this order, once its inputs are handled.
    fn finish_round(&mut self, has_drained: bool, was_written: bool) {
        if has_drained {
            self.check_queues();
        }
        self.end_expired_sessions();
        self.agents.send_delayed(self.round.now);
        self.limit_memory();
        self.limit_slow_readers();
        self.agents
            .not_reading(&self.round)
            .into_iter()
            .for_each(|id| self.end_agent(id, Err(agents::does_not_read())));
        self.limit_large_messages();
        if self.programs.next_timer().is_some_and(|timer| timer <= self.round.now) {
            let (programs, askable, round) = self.programs();
            programs.ask_others_if_late(round, &askable);
        }
        self.detached.prepare_round(&mut self.round, was_written);
        self.detached.lend(&mut self.round);
        if let Some(drain) = &mut self.drain {
            drain.log_progress(&self.round, &self.clients);
        }
        self.answer_requests();
        self.round.coordinator.schedule(self.round.now, &mut self.round.out);
        self.send();
        self.detached.write_entries(&mut self.round);
        self.end_detached();
    }

    fn handle_input(&mut self, input: Input) {
        match input {
            Input::FromClient(input) => self.handle_client(input),
            Input::FromAgent(input) => self.handle_agent(input),
            Input::NewClient(new) => self.begin_client(new),
            Input::ResumeClient(request) => self.resume_client(request),
            Input::NewAgent(new) => self.begin_agent(new),
            Input::ResumeAgent(request) => self.resume_agent(request),
            Input::ReadDone(read) => self.detached.handle_read(&mut self.round, read),
            Input::Control(request) => self.answer(request),
            Input::ProgramsArrived(reply) => {
                let _ = reply.send(self.programs.arrived());
            }
            Input::ProgramNeeded(digest, arrived, reply) => {
                let (programs, askable, round) = self.programs();
                programs.needed(round, &askable, (digest, arrived), reply);
            }
            Input::UploadBegins(digest, reply) => self.begin_upload(digest, reply),
            Input::UploadEnds(digest, outcome) => self.end_upload(digest, outcome),
        }
    }

    /// Returns when the next round is due if no input arrives.
    fn next_timer(&self) -> Option<u64> {
        let now = self.round.now;
        let timers = [
            self.next_check(),
            self.round.coordinator.next_deadline(),
            self.disconnected.next_check(),
            self.agents.next_check(now),
            self.memory.next_check(now),
            self.slow_readers.next_check(now),
            self.pending.next_check(),
            self.programs.next_timer(),
            self.detached.next_check(&self.round),
            self.drain.as_ref().map(Drain::next_check),
        ];
        timers.into_iter().flatten().min()
    }

    /// Returns when to schedule again without any input: while slots are idle, chunks that take too long are taken back. The longer no input
    /// arrives, the less often.
    fn next_check(&self) -> Option<u64> {
        let (at, now) = (self.round.coordinator.next_due()?, self.round.now);
        Some(at.max(now + (now - self.last_input_at) / 4))
    }

    /// Puts the coordinator's messages into the queues of their receivers, all messages to a receiver at once.
    fn send(&mut self) {
        while !(self.round.out.to_clients.is_empty() && self.round.out.to_agents.is_empty()) {
            // Clients are first: they wait for results. A queue that becomes too long pauses its pool, which may cause more messages.
            self.send_to_clients();
            self.send_to_agents();
            self.detached.handle_pool_events(&mut self.round);
        }
    }

    /// Returns whether the server is drained.
    fn is_over(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.is_over(&self.round, &self.clients, &self.detached))
    }

    async fn begin_to_drain(&mut self) {
        (self.drain, self.round.drains) = (Some(Drain::default()), true);
        self.health.report(ServingStatus::NotServing).await;
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
