//! The coordinator, the agent and the client's jobs: a local session without its threads.

use std::env;
use std::ffi::OsString;
use std::sync::Arc;

use farpool_agent::fork_server::Program;
use farpool_agent::{Agent, Armed};
use farpool_coordinator::{AgentId, ClientId, Config, Coordinator, Outbox, Principal};
use farpool_link::clock;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{AgentEvent, ClientMessage, OpenPool};
use nix::sys::epoll::Epoll;

use crate::error::{Error, ErrorKind};
use crate::inbox::Inbox;
use crate::inboxes::Inboxes;
use crate::settings::Settings;

/// Rounds that one thread does before another gets a turn.
const ROUNDS: usize = 64;

pub(super) struct Engine {
    coordinator: Coordinator,
    client: ClientId,
    agent_id: AgentId,
    agent: Agent,
    pub(super) inboxes: Inboxes,
    /// Bytes that each job may send before it is granted more.
    window: u64,
    /// There is more work; see [`ROUNDS`].
    unfinished: bool,
    // Kept to reuse their memory.
    outbox: Outbox,
    events: Vec<AgentEvent>,
}

impl Engine {
    pub(super) fn start(settings: Settings) -> Result<Engine, Error> {
        let agent = Agent::new(settings.processes, program(settings.program, settings.environment))
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("cannot prepare the workers: {error}")))?;
        let mut coordinator = Coordinator::new(Config::default());
        let (client, agent_id) = (coordinator.connect_client(Principal::local()), coordinator.connect_agent());
        let mut engine = Engine {
            coordinator,
            client,
            agent_id,
            agent,
            inboxes: Inboxes::default(),
            window: 0,
            unfinished: false,
            outbox: Outbox::default(),
            events: Vec::new(),
        };
        // The agent's first event introduces it, which must come before the pool.
        let now = clock::now();
        engine.collect_events(now);
        let open = OpenPool { processes: settings.processes, settings: Some(settings.settings), ..OpenPool::default() };
        engine.send_body(Body::OpenPool(Box::new(open)), now)?;
        engine.pump(now);
        match engine.inboxes.failure() {
            Some(error) => Err(error),
            None => Ok(engine),
        }
    }

    pub(super) fn epoll(&self) -> &Arc<Epoll> {
        self.agent.epoll()
    }

    pub(super) fn submit(&mut self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        let now = clock::now();
        let admitted = self.admit(inbox, messages.drain(..), now);
        self.pump(now);
        admitted
    }

    /// Submits a job; the next round acts on it.
    pub(super) fn admit(
        &mut self,
        inbox: &Arc<Inbox>,
        messages: impl Iterator<Item = Body>,
        now: u64,
    ) -> Result<(), Error> {
        self.unfinished = true;
        if let Err(error) = self.inboxes.admit(inbox) {
            messages.for_each(drop);
            return Err(error);
        }
        let sent = self.send_all(messages, now);
        if sent.is_err() {
            self.inboxes.forget(inbox.job());
        }
        sent
    }

    pub(super) fn send(&mut self, messages: &mut Vec<Body>) -> Result<(), Error> {
        let now = clock::now();
        let sent = self.send_all(messages.drain(..), now);
        self.pump(now);
        sent
    }

    fn send_all(&mut self, messages: impl Iterator<Item = Body>, now: u64) -> Result<(), Error> {
        let mut outcome = Ok(());
        for body in messages {
            // All jobs have ended with the session; a thread that feeds one is about to notice.
            if outcome.is_ok() && !self.inboxes.is_closed() {
                outcome = self.send_body(body, now);
            }
        }
        outcome
    }

    /// Returns the process ids of the workers that take items or are about to.
    pub(super) fn worker_pids(&self) -> Vec<u32> {
        self.agent.worker_pids().collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.inboxes.is_closed()
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Handles a ready descriptor; `data` is that of its epoll event.
    pub(super) fn ready(&mut self, data: u64, now: u64) {
        self.agent.ready(data, now);
    }

    /// Does pending work. It may leave some for the next call, which [`Engine::arm`] then reports.
    pub(super) fn pump(&mut self, mut now: u64) {
        self.route(now);
        for _ in 0..ROUNDS {
            self.unfinished = self.collect_events(now);
            if !self.unfinished {
                return;
            }
            now = clock::now();
            self.route(now);
        }
    }

    /// Prepares for sleep; call it before sleeping.
    pub(super) fn arm(&mut self) -> Armed {
        if self.unfinished { Armed::Busy } else { self.agent.arm() }
    }

    /// Lets the agent work, and passes its events to the coordinator. Returns false if there were none.
    fn collect_events(&mut self, now: u64) -> bool {
        self.agent.pump(now, &mut self.events);
        let any = !self.events.is_empty();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let Err(refused) = self.coordinator.agent_event(self.agent_id, event, now, &mut self.outbox) {
                self.inboxes.fail(Error::protocol(refused));
            }
        }
        self.events = events;
        any
    }

    /// Delivers the coordinator's messages.
    fn route(&mut self, now: u64) {
        self.coordinator.schedule(now, &mut self.outbox);
        let mut outbox = std::mem::take(&mut self.outbox);
        for (_, command) in outbox.to_agents.drain(..) {
            if let Err(refused) = self.agent.command(command) {
                self.inboxes.fail(Error::protocol(refused));
            }
        }
        for (_, event) in outbox.to_clients.drain(..) {
            // Other events matter only on a cluster.
            if let Some(Event::Welcome(welcome)) = self.inboxes.deliver(event) {
                self.window = welcome.window;
            }
        }
        // Messages that arrived in the meantime must not be lost.
        outbox.to_agents.append(&mut self.outbox.to_agents);
        outbox.to_clients.append(&mut self.outbox.to_clients);
        self.outbox = outbox;
    }

    fn send_body(&mut self, body: Body, now: u64) -> Result<(), Error> {
        if let Body::ClosePool(_) = body {
            self.inboxes.stop_admitting();
        }
        let message = ClientMessage { body: Some(body) };
        self.coordinator.client_message(self.client, message, now, &mut self.outbox).map_err(Error::protocol)
    }
}

/// Converts the workers' program for the agent.
fn program(program: crate::Program, added: Vec<(OsString, OsString)>) -> Program {
    let environment = (!added.is_empty()).then(|| env::vars_os().chain(added).collect());
    Program { path: program.file, arguments: program.arguments, environment, directory: None, keep: program.keep }
}
