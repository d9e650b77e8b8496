//! The coordinator, the agent and the client's jobs: everything that a local session is made of, without its threads.

use std::collections::HashMap;
use std::sync::Arc;

use farpool_agent::fork_server::Program;
use farpool_agent::{Agent, Armed, clock};
use farpool_coordinator::{AgentId, ClientId, Config, Coordinator, Outbox};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{AgentEvent, ClientEvent, ClientMessage, OpenPool};
use nix::sys::epoll::Epoll;

use crate::error::{Error, ErrorKind};
use crate::inbox::{End, Inbox, Wakes};
use crate::settings::Settings;

/// Rounds that one thread does before it lets another have a turn.
const ROUNDS: usize = 64;

pub(super) struct Engine {
    coordinator: Coordinator,
    client: ClientId,
    agent_id: AgentId,
    agent: Agent,
    inboxes: HashMap<u64, Arc<Inbox>>,
    /// The inbox that was delivered to last, since the next outcome is likely to be of the same job.
    latest: Option<Arc<Inbox>>,
    /// What each job may send before it is granted more.
    window: u64,
    failure: Option<Error>,
    closed: bool,
    /// Whom to wake when the lock is free.
    wakes: Vec<Wakes>,
    /// Something reached an inbox since this was last cleared.
    pub(super) delivered: bool,
    /// More is to be done; see [`ROUNDS`].
    unfinished: bool,
    /// Jobs are not accepted any more.
    closing: bool,
    // Kept for their memory.
    outbox: Outbox,
    events: Vec<AgentEvent>,
}

impl Engine {
    pub(super) fn start(settings: Settings) -> Result<Engine, Error> {
        let agent = Agent::new(settings.processes, Program::current(crate::worker::arguments()))
            .map_err(|error| Error::new(ErrorKind::Unavailable, format!("preparing the pool's workers: {error}")))?;
        let mut coordinator = Coordinator::new(Config::default());
        let (client, agent_id) = (coordinator.connect_client(), coordinator.connect_agent());
        let mut engine = Engine {
            coordinator,
            client,
            agent_id,
            agent,
            inboxes: HashMap::new(),
            latest: None,
            window: 0,
            failure: None,
            closed: false,
            wakes: Vec::new(),
            delivered: false,
            unfinished: false,
            closing: false,
            outbox: Outbox::default(),
            events: Vec::new(),
        };
        // The agent's first event introduces it, which must come before the pool.
        engine.collect_events();
        let open = OpenPool { processes: settings.processes, settings: Some(settings.settings), ..OpenPool::default() };
        engine.say(Body::OpenPool(open), clock::now())?;
        engine.pump();
        match engine.failure.clone() {
            Some(error) => Err(error),
            None => Ok(engine),
        }
    }

    pub(super) fn epoll(&self) -> &Arc<Epoll> {
        self.agent.epoll()
    }

    pub(super) fn submit(&mut self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        if let Some(error) = self.failure.clone() {
            messages.clear();
            return Err(error);
        }
        if self.closing {
            messages.clear();
            return Err(Error::new(ErrorKind::Closed, "the pool was closed before the call"));
        }
        self.inboxes.insert(inbox.job(), Arc::clone(inbox));
        let sent = self.send(messages);
        if sent.is_err() {
            self.inboxes.remove(&inbox.job());
        }
        sent
    }

    pub(super) fn send(&mut self, messages: &mut Vec<Body>) -> Result<(), Error> {
        let now = clock::now();
        let mut outcome = Ok(());
        for body in messages.drain(..) {
            // All jobs have ended with the session; a thread that feeds one is about to notice.
            if outcome.is_ok() && !self.closed {
                outcome = self.say(body, now);
            }
        }
        self.pump();
        outcome
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.clone()
    }

    /// Those whom deliveries wake: to be woken by the caller once it has given back the lock.
    pub(super) fn take_wakes(&mut self) -> Vec<Wakes> {
        std::mem::take(&mut self.wakes)
    }

    /// A descriptor is ready; `data` is that of its epoll event.
    pub(super) fn ready(&mut self, data: u64) {
        self.agent.ready(data);
    }

    /// Does what there is to do; may leave some for the next time, which [`Engine::arm`] then says.
    pub(super) fn pump(&mut self) {
        let now = clock::now();
        self.route(now);
        for _ in 0..ROUNDS {
            self.unfinished = self.collect_events();
            if !self.unfinished {
                return;
            }
            self.route(now);
        }
    }

    /// To be called before sleeping.
    pub(super) fn arm(&mut self) -> Armed {
        if self.unfinished { Armed::Busy } else { self.agent.arm() }
    }

    /// Lets the agent work, and takes its events to the coordinator; false if there were none.
    fn collect_events(&mut self) -> bool {
        self.agent.pump(&mut self.events);
        let any = !self.events.is_empty();
        let now = clock::now();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let Err(refused) = self.coordinator.agent_event(self.agent_id, event, now, &mut self.outbox) {
                self.fail(Error::protocol(refused));
            }
        }
        self.events = events;
        any
    }

    /// Takes the coordinator's messages to where they belong.
    fn route(&mut self, now: u64) {
        self.coordinator.schedule(now, &mut self.outbox);
        let mut outbox = std::mem::take(&mut self.outbox);
        for (_, command) in outbox.to_agents.drain(..) {
            if let Err(refused) = self.agent.command(command) {
                self.fail(Error::protocol(refused));
            }
        }
        for (_, event) in outbox.to_clients.drain(..) {
            self.deliver(event);
        }
        // Whatever was said meanwhile must not be lost.
        outbox.to_agents.append(&mut self.outbox.to_agents);
        outbox.to_clients.append(&mut self.outbox.to_clients);
        self.outbox = outbox;
    }

    fn say(&mut self, body: Body, now: u64) -> Result<(), Error> {
        self.closing |= matches!(body, Body::ClosePool(_));
        let message = ClientMessage { body: Some(body) };
        self.coordinator.client_message(self.client, message, now, &mut self.outbox).map_err(Error::protocol)
    }

    fn deliver(&mut self, event: ClientEvent) {
        self.delivered = true;
        match event.body {
            Some(Event::ItemsDone(done)) => {
                let wakes = self.inbox(done.job).map(|inbox| inbox.deliver_done(done.first, done.data, done.ends));
                self.wake_later(wakes);
            }
            Some(Event::ItemFailed(failed)) => {
                let failure = failed.failure.unwrap_or_default();
                let wakes = self.inbox(failed.job).map(|inbox| inbox.deliver_failed(failed.item, failure));
                self.wake_later(wakes);
            }
            Some(Event::Window(window)) => {
                let wakes = self.inbox(window.job).map(|inbox| inbox.grant(window.limit));
                self.wake_later(wakes);
            }
            Some(Event::JobEnded(ended)) => {
                self.latest = None;
                let end = if ended.cancelled { End::Cancelled } else { End::Finished };
                let wakes = self.inboxes.remove(&ended.job).map(|inbox| inbox.end(end));
                self.wake_later(wakes);
            }
            Some(Event::PoolFailed(failed)) => self.fail(Error::from_failure(failed.failure.unwrap_or_default())),
            Some(Event::PoolClosed(_)) => self.close(),
            Some(Event::Welcome(welcome)) => self.window = welcome.window,
            // Of interest on a cluster only.
            Some(Event::PoolOpened(_) | Event::Waiting(_) | Event::ProgramWanted(_) | Event::Output(_)) | None => {}
        }
    }

    fn inbox(&mut self, job: u64) -> Option<&Arc<Inbox>> {
        if self.latest.as_ref().is_none_or(|inbox| inbox.job() != job) {
            self.latest = self.inboxes.get(&job).cloned();
        }
        self.latest.as_ref()
    }

    /// The pool cannot run anything any more: whoever waits is told why.
    fn fail(&mut self, error: Error) {
        self.delivered = true;
        self.latest = None;
        self.end_all(&End::PoolFailed(error.clone()));
        self.failure.get_or_insert(error);
    }

    fn close(&mut self) {
        self.closed = true;
        self.latest = None;
        self.end_all(&End::Closed);
    }

    fn end_all(&mut self, end: &End) {
        let Engine { inboxes, wakes, .. } = self;
        wakes.extend(inboxes.drain().map(|(_, inbox)| inbox.end(end.clone())).filter(|wakes| !wakes.is_empty()));
    }

    fn wake_later(&mut self, wakes: Option<Wakes>) {
        self.wakes.extend(wakes.filter(|wakes| !wakes.is_empty()));
    }
}
