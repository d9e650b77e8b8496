//! The loop that owns the coordinator.
//!
//! A round takes in all that has come, lets the coordinator schedule once, and puts what it says into the sessions'
//! queues. Nothing here blocks, and nothing waits for a peer.

mod acks;
mod agents;
mod away;
mod clients;
mod company;
mod detached;
mod drain;
mod memory;
mod operators;
mod partials;
mod programs;
mod session;
mod slow_readers;
mod unread;

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::pin;

use farpool_coordinator::{AgentId, ClientId, Config, Coordinator, Outbox};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tonic::Status;

use super::clock::Clock;
use super::link::{Input, Link};
use super::services::Health;
use super::settings::Settings;
use agents::Agent;
use away::Away;
use clients::Client;
use company::Company;
pub(super) use detached::Opened;
use detached::{Detached, Room, Turn};
use drain::Drain;
use memory::Memory;
use operators::Asked;
use partials::Partials;
use programs::Programs;
use session::{Identity, SessionKey};

/// Inputs that are taken in in one round, and messages in them, about; those that are left come with the next.
const ROUND: usize = 256;
const ROUND_MESSAGES: usize = 8192;

pub(super) struct Driver {
    coordinator: Coordinator,
    received: mpsc::Receiver<Input>,
    link: Link,
    health: Health,
    clients: BTreeMap<ClientId, Client>,
    agents: BTreeMap<AgentId, Agent>,
    /// By what they are known on other connections.
    client_ids: BTreeMap<SessionKey, ClientId>,
    agent_ids: BTreeMap<Identity, AgentId>,
    /// Of each agent, in bytes.
    agents_window: usize,
    away: Away,
    company: Company,
    memory: Memory,
    partials: Partials,
    asked: Asked,
    /// Bytes that may wait for a client before its pool is paused, and that may be left when it is resumed.
    queue: usize,
    low_queue: usize,
    programs: Programs,
    detached: Detached,
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
        Self {
            coordinator: Coordinator::new(config),
            received,
            health,
            clients: BTreeMap::new(),
            agents: BTreeMap::new(),
            client_ids: BTreeMap::new(),
            agent_ids: BTreeMap::new(),
            agents_window: usize::MAX,
            away: Away::new(settings.reconnect_grace),
            company: Company::default(),
            memory: Memory::new(settings.memory, settings.heartbeat_timeout),
            partials: Partials::new(settings.memory, settings.limits.first_message),
            asked: Asked::default(),
            queue: settings.queue(),
            low_queue: settings.low_queue(),
            programs: Programs::new(&link.limits),
            detached: Detached::new(opened),
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
        let wakeup = self.detached.wakeup();
        self.with_detached(|detached, turn| detached.begin(turn));
        // To set it to an earlier time costs a system call, and each call of a client's moves the next look: so it is
        // left as it is if it rings in time, and may ring for nothing.
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
                // Inputs come last: there may always be some.
                biased;
                () = &mut shutdown, if self.drain.is_none() => self.begin_to_drain().await,
                () = drained.notified() => has_drained = true,
                () = &mut timer, if rings_at.is_some() => rings_at = None,
                () = Detached::written(wakeup.as_ref()) => was_written = true,
                () = ready(()), if !inputs.is_empty() => {}
                _ = self.received.recv_many(&mut inputs, ROUND) => {}
                () = ready(()), if self.detached.has_more() => {}
            }
            self.now = self.clock.now();
            if !inputs.is_empty() {
                self.heard_at = self.now;
            }
            inputs.drain(..of_one_round(&inputs)).for_each(|input| self.take_in(input));
            if has_drained {
                self.look_at_queues();
            }
            self.tend_away();
            self.tend_company();
            self.tend_memory();
            self.tend_slow_readers();
            self.tend_unread();
            self.tend_partials();
            self.tend_programs();
            self.with_detached(|detached, turn| {
                detached.tend(turn, was_written);
                detached.lend(turn);
            });
            self.tend_drain();
            self.tend_asked();
            self.coordinator.schedule(self.now, &mut self.out);
            self.send();
            self.with_detached(|detached, turn| detached.write_down(turn));
        }
        self.say_goodbye();
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::ClientSays(says) => self.client_says(says),
            Input::AgentSays(says) => self.agent_says(says),
            Input::ClientJoins(joins) => self.client_joins(joins),
            Input::ClientResumes(resumes) => self.client_resumes(resumes),
            Input::AgentJoins(joins) => self.agent_joins(joins),
            Input::AgentResumes(resumes) => self.agent_resumes(resumes),
            Input::DetachJoins(joins) => self.with_detached(|detached, turn| detached.detach_joins(turn, joins)),
            Input::DetachSays(says) => self.with_detached(|detached, turn| detached.detach_says(turn, says)),
            Input::AttachJoins(joins) => self.with_detached(|detached, turn| detached.attach_joins(turn, joins)),
            Input::AttachSays(says) => self.with_detached(|detached, turn| detached.attach_says(turn, says)),
            Input::CannotResume(resumes) => resumes.reply.refuse(cannot_resume()),
            Input::WasRead(read) => self.with_detached(|detached, turn| detached.was_read(turn, read)),
            Input::Asked(question) => self.answer(question),
            Input::ProgramsCame(reply) => {
                let _ = reply.send(self.programs.came());
            }
            Input::ProgramNeeded(digest, came, reply) => self.program_needed(digest, came, reply),
            Input::UploadBegins(digest, reply) => self.upload_begins(digest, reply),
            Input::UploadEnds(digest, outcome) => self.upload_ends(digest, outcome),
        }
    }

    /// Has detached jobs do something, with what they may touch.
    fn with_detached<T>(&mut self, act: impl FnOnce(&mut Detached, &mut Turn<'_>) -> T) -> T {
        let memory = &self.memory;
        let memory = Room { is_full: memory.is_full(), bound: memory.bound(), patience: memory.patience() };
        let (coordinator, out, link) = (&mut self.coordinator, &mut self.out, &self.link);
        let mut turn = Turn { now: self.now, coordinator, out, link, memory, drains: self.drain.is_some() };
        act(&mut self.detached, &mut turn)
    }

    /// When to go round at the latest, if nothing comes.
    fn next_timer(&self) -> Option<u64> {
        let drain = self.drain.as_ref().map(Drain::next_look);
        let timers = [
            self.next_look(),
            self.coordinator.next_deadline(),
            self.away.next_look(),
            self.company.next_look(),
            self.memory.next_look(self.now),
            self.partials.next_look(self.now),
            self.asked.next_look(),
            self.programs.next_timer(),
            self.detached.next_look(self.link.limits.detach, self.memory.bound()),
            drain,
        ];
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
            // Who waits for a result is told first. A queue that becomes too long pauses its pool, which may mean more to
            // say.
            self.send_to_clients();
            self.send_to_agents();
            self.with_detached(|detached, turn| detached.hear_pools(turn));
        }
    }
}

/// How many of these inputs one round takes in: one at least, if there is one.
fn of_one_round(inputs: &[Input]) -> usize {
    let mut messages = 0;
    let fits = |input: &&Input| {
        let before = messages;
        messages += input.messages();
        before < ROUND_MESSAGES
    };
    inputs.iter().take_while(fits).count()
}

/// What those are told who want to go on with a call that each connection makes anew.
fn cannot_resume() -> Status {
    Status::invalid_argument("calls for detached jobs cannot be resumed: make the call again")
}
