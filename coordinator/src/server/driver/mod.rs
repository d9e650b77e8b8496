//! The loop that owns the coordinator.
//!
//! A round takes in all that has come, lets the coordinator schedule once, and puts what it says into the sessions'
//! queues. Nothing here blocks, and nothing waits for a peer.

mod agents;
mod clients;
mod drain;
mod memory;
mod operators;
mod programs;

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::clock::Clock;
use super::link::{Input, Link};
use super::services::Health;
use super::settings::Settings;
use crate::{AgentId, ClientId, Config, Coordinator, Outbox};
use agents::Agent;
use clients::Client;
use drain::Drain;
use memory::Memory;
use programs::Programs;

/// Inputs that are taken in in one round; those that are left come with the next.
const ROUND: usize = 256;

pub(super) struct Driver {
    coordinator: Coordinator,
    received: mpsc::Receiver<Input>,
    link: Link,
    health: Health,
    clients: HashMap<ClientId, Client>,
    agents: HashMap<AgentId, Agent>,
    memory: Memory,
    /// Bytes that may wait for a client before its pool is paused, and that may be left when it is resumed.
    queue: usize,
    low_queue: usize,
    programs: Programs,
    drain: Option<Drain>,
    clock: Clock,
    /// The time of this round.
    now: u64,
    /// When something last came in.
    heard_at: u64,
    // Kept for their memory.
    out: Outbox,
    touched_clients: Vec<ClientId>,
    touched_agents: Vec<AgentId>,
}

impl Driver {
    pub(super) fn new(settings: &Settings, link: Link, received: mpsc::Receiver<Input>, health: Health) -> Self {
        let config = Config { window: settings.window, ..Config::default() };
        Self {
            coordinator: Coordinator::new(config),
            received,
            health,
            clients: HashMap::new(),
            agents: HashMap::new(),
            memory: Memory::new(settings.memory),
            queue: settings.queue(),
            low_queue: settings.low_queue(),
            programs: Programs::new(&link.limits),
            drain: None,
            clock: Clock::start(),
            now: 0,
            heard_at: 0,
            out: Outbox::default(),
            touched_clients: Vec::new(),
            touched_agents: Vec::new(),
            link,
        }
    }

    /// Until `shutdown` has come about and all pools have ended.
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let (mut shutdown, mut inputs) = (pin!(shutdown), Vec::with_capacity(ROUND));
        let drained = self.link.drained.clone();
        while !self.is_over() {
            let timer = self.next_timer();
            let wake_at = self.clock.instant(timer.unwrap_or(0));
            let mut has_drained = false;
            tokio::select! {
                _ = self.received.recv_many(&mut inputs, ROUND) => {}
                () = drained.notified() => has_drained = true,
                () = sleep_until(wake_at), if timer.is_some() => {}
                () = &mut shutdown, if self.drain.is_none() => self.begin_to_drain().await,
            }
            self.now = self.clock.now();
            if !inputs.is_empty() {
                self.heard_at = self.now;
            }
            inputs.drain(..).for_each(|input| self.take_in(input));
            if has_drained {
                self.look_at_queues();
            }
            self.tend_memory();
            self.tend_programs();
            self.tend_drain();
            self.coordinator.schedule(self.now, &mut self.out);
            self.send();
        }
        self.say_goodbye();
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::ClientSays(client, said) => self.client_says(client, said),
            Input::AgentSays(agent, said) => self.agent_says(agent, said),
            Input::ClientJoins(joins) => self.client_joins(joins),
            Input::AgentJoins(joins) => self.agent_joins(joins),
            Input::Asked(question) => self.answer(question),
            Input::ProgramNeeded(digest, reply) => self.program_needed(digest, reply),
            Input::UploadBegins(digest, reply) => self.upload_begins(digest, reply),
            Input::UploadEnds(digest, outcome) => self.upload_ends(digest, outcome),
        }
    }

    /// When to go round at the latest, if nothing comes.
    fn next_timer(&self) -> Option<u64> {
        let drain = self.drain.as_ref().map(Drain::next_look);
        let timers = [self.next_look(), self.memory.next_look(self.now), self.programs.next_timer(), drain];
        timers.into_iter().flatten().min()
    }

    /// When to schedule again although nothing has come: chunks that take too long are taken back while slots idle.
    /// The longer nothing comes the rarer.
    fn next_look(&self) -> Option<u64> {
        let look = self.coordinator.next_look()?;
        Some(look.max(self.now + (self.now - self.heard_at) / 4))
    }

    /// Puts what the coordinator says into the queues of those who are meant, for each all at once.
    fn send(&mut self) {
        while !(self.out.to_clients.is_empty() && self.out.to_agents.is_empty()) {
            self.send_to_agents();
            // A queue that becomes too long pauses its pool, which may mean more to say.
            self.send_to_clients();
        }
    }
}
