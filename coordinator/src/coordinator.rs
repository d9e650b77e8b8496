//! The coordinator: its doors, and nothing behind them.

use std::collections::BTreeSet;

use farpool_core::{Core, JobId};
use farpool_proto::v1::{AgentEvent, ClientMessage, StatusReply, agent_command};

use crate::config::Config;
use crate::convert::{self, Ticket};
use crate::inputs::{agent, client, questions, status};
use crate::outbox::Outbox;
use crate::parts::Parts;
use crate::parts::former::Reopening;
use crate::refused::Refused;
use crate::round::{Notes, Report, Round};
use crate::steps::review::end_and_review;
use crate::steps::{follow, recovery, settling};
use crate::{AgentId, ClientId, Principal};

/// All state of a coordinator; see the [crate's](crate) description for how to drive it.
///
/// `now` is everywhere a time in ns from one clock that does not go back.
pub struct Coordinator {
    config: Config,
    core: Core,
    parts: Parts,
    notes: Notes,
}

impl Coordinator {
    /// A coordinator to which nobody is connected.
    pub fn new(config: Config) -> Self {
        let config = Config { window: config.window.max(1), ..config };
        Self { core: Core::new(config.core.clone()), config, parts: Parts::default(), notes: Notes::default() }
    }

    /// Lets one thing happen, and all that follows from it.
    #[inline]
    fn round<T>(&mut self, now: u64, out: &mut Outbox, happens: impl FnOnce(&mut Parts, &mut Round<'_>) -> T) -> T {
        let mut round = Round::new(now, &self.config, &mut self.core, out, &mut self.notes);
        let answer = happens(&mut self.parts, &mut round);
        end_and_review(&mut self.parts, &mut round);
        debug_assert!(self.notes.is_empty(), "what is to follow follows in the same round");
        answer
    }
}

/// Sessions.
impl Coordinator {
    /// A client's session begins; what it opens belongs to `owner`.
    pub fn connect_client(&mut self, owner: Principal) -> ClientId {
        self.parts.clients.connect(owner)
    }

    /// An agent's session begins.
    pub fn connect_agent(&mut self) -> AgentId {
        self.parts.agents.connect()
    }

    /// Takes in a client's message.
    ///
    /// # Errors
    /// If the message must not have been sent. Nothing has happened then; end the session and call
    /// [`client_gone`](Self::client_gone).
    pub fn client_message(
        &mut self,
        from: ClientId,
        message: ClientMessage,
        now: u64,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let message = convert::from_client(message)?;
        self.round(now, out, |parts, round| client::says(parts, round, from, message))
    }

    /// Takes in an agent's message.
    ///
    /// # Errors
    /// If the message must not have been sent. Nothing has happened then; end the session and call
    /// [`agent_gone`](Self::agent_gone).
    pub fn agent_event(&mut self, from: AgentId, event: AgentEvent, now: u64, out: &mut Outbox) -> Result<(), Refused> {
        let event = convert::from_agent(event)?;
        self.round(now, out, |parts, round| agent::says(parts, round, from, event))
    }

    /// A client's session has ended, in whatever way: its jobs are dropped and its workers stopped.
    pub fn client_gone(&mut self, client: ClientId, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| client::gone(parts, round, client));
    }

    /// An agent's session has ended, in whatever way: what it held runs elsewhere, as far as it may.
    pub fn agent_gone(&mut self, agent: AgentId, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| agent::gone(parts, round, agent));
    }

    /// Whether the agent's connection is lost, and it may come back on another one: it keeps what it has, and gets nothing
    /// new meanwhile.
    pub fn agent_away(&mut self, agent: AgentId, away: bool, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| agent::away(parts, round, agent, away));
    }

    /// Messages for the client were taken out of the outbox; the last of all that were has this number, counted from 1.
    pub fn client_numbered(&mut self, client: ClientId, last: u64) {
        client::numbered(&mut self.parts, client, last);
    }

    /// The client has taken in its messages up to this one.
    pub fn client_acknowledged(&mut self, client: ClientId, last: u64, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| client::acknowledged(parts, round, client, last));
    }

    /// Whether nothing more of a client's pool is handed out, because the client does not read what is there for it. What
    /// is out goes on.
    pub fn pause_client(&mut self, client: ClientId, paused: bool, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| client::pause(parts, round, client, paused));
    }

    /// Replaces the tickets of all clients that wait for unfinished detached jobs: slots are lent for them.
    pub fn lend_to_attached(&mut self, tickets: BTreeSet<Ticket>) {
        self.parts.lends.set_attached(tickets);
    }
}

/// The end of a round.
impl Coordinator {
    /// Hands out what can run: one message for each agent with all its new chunks. To be called once after all
    /// messages that were there have been taken in, and before the outbox is drained.
    pub fn schedule(&mut self, now: u64, out: &mut Outbox) {
        self.round(now, out, recovery::look_at_deadlines);
        self.round(now, out, |parts, round| {
            round.schedule();
            follow::follow(parts, round, Report::none());
        });
        self.parts.agents.flush(out);
        settling::settle(&mut self.parts, out);
        self.lend_slots(out);
    }

    fn lend_slots(&mut self, out: &mut Outbox) {
        let Parts { clients, agents, lends, .. } = &mut self.parts;
        let unfinished = |client| clients.get(client).is_some_and(|client| client.stored() > 0);
        for (agent, lend) in lends.update(unfinished, |agent| agents.session_of(agent)) {
            out.agent(agent, agent_command::Body::LendSlot(lend));
        }
    }

    /// When to call [`schedule`](Self::schedule) again although nothing has come; none: not before something comes.
    pub fn next_look(&self) -> Option<u64> {
        self.core.next_look().into_iter().chain(self.next_deadline()).min()
    }

    /// That of [`next_look`](Self::next_look) which must not be later: when those have had their time who are waited for.
    pub fn next_deadline(&self) -> Option<u64> {
        self.parts.deadlines.next()
    }
}

/// What operators see and do.
impl Coordinator {
    /// All that is there: agents, pools and jobs, the oldest first, but no more than so many pools and jobs. What only the server
    /// knows is left for it to fill in.
    pub fn status(&self, now: u64, most: usize) -> StatusReply {
        let late_messages = self.late_messages();
        StatusReply { late_messages, ..status::status(&self.parts, &self.core, now, most) }
    }

    /// Which client each pool in [`status`](Self::status) is of.
    pub fn pool_clients(&self) -> impl Iterator<Item = (String, ClientId)> {
        self.parts.pools.iter().map(|(_, pool)| (pool.spec().name.to_string(), pool.client()))
    }

    /// The agent that an operator means by an id, or by the name of a host that no other agent has; and its id as text.
    ///
    /// # Errors
    /// What there is instead.
    pub fn find_agent(&self, text: &str) -> Result<(AgentId, String), String> {
        questions::find_agent(&self.parts, text)
    }

    /// The open job that an operator means, by its number as it is shown: nothing else means it, neither "02" nor "+2".
    ///
    /// # Errors
    /// What there is instead.
    pub fn find_job(&self, text: &str) -> Result<JobId, String> {
        questions::find_job(&self.parts, text)
    }

    /// Has an agent finish what runs, give back the rest, and leave; it is told so once. False if it is not there.
    pub fn drain_agent(&mut self, id: AgentId, now: u64, out: &mut Outbox) -> bool {
        self.round(now, out, |parts, round| agent::drain(parts, round, id))
    }

    /// Ends a job as if its client had cancelled it. False if it is not there.
    pub fn cancel_job(&mut self, job: JobId, now: u64, out: &mut Outbox) -> bool {
        let is_there = self.parts.jobs.get(job).is_some();
        self.round(now, out, |parts, round| follow::cancel(parts, round, job));
        is_there
    }
}

/// What the server asks.
impl Coordinator {
    /// Messages that came too late to mean anything and were dropped: outcomes of old attempts, words about jobs and
    /// pools that had ended.
    pub fn late_messages(&self) -> u64 {
        self.notes.late_messages() + self.core.stale_reports()
    }

    /// What items that wait for their outcomes take: their bytes and positions, and some for each message of them.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.clients.stored()
    }

    /// The part of [`stored_bytes`](Self::stored_bytes) that is a client's.
    pub fn stored_bytes_of(&self, client: ClientId) -> u64 {
        self.parts.clients.get(client).map_or(0, |client| client.stored())
    }

    /// What jobs take that have not ended, beside their items.
    pub fn job_bytes(&self) -> u64 {
        self.parts.clients.opened()
    }

    /// The part of [`job_bytes`](Self::job_bytes) that is a client's.
    pub fn job_bytes_of(&self, client: ClientId) -> u64 {
        self.parts.clients.get(client).map_or(0, |client| client.opened())
    }

    /// Whether nothing is left of any pool: no job, and no worker at any agent.
    pub fn is_idle(&self) -> bool {
        self.parts.pools.is_empty()
    }

    /// Whether slots idle because nothing that is here can run on them.
    pub fn idles(&self) -> bool {
        self.core.idles()
    }

    /// Whether there is an agent that a client's pool runs on, or was to run on before it was opened again: more of it may be of use.
    pub fn has_place(&self, client: ClientId) -> bool {
        questions::has_place(&self.parts, &self.core, client)
    }

    /// Whether places of the client's pool start when it says that it knows of them.
    pub fn is_to_hear(&self, client: ClientId) -> bool {
        questions::pool_of(&self.parts, client).is_some_and(|pool| pool.places.has_pending())
    }

    /// Whether a client's items wait for others: those that make up an explicit chunk with them, or all that a pool still wants
    /// that was open before.
    pub fn lacks_chunk(&self, client: ClientId) -> bool {
        questions::lacks_chunk(&self.parts, client)
    }

    /// Whether a client has a job of which nothing is here to be run, and more may come.
    pub fn lacks_items(&self, client: ClientId) -> bool {
        questions::lacks_items(&self.parts, client)
    }

    /// Whether the client's pool was open before, and not all of it has been said again.
    pub fn is_reopening(&self, client: ClientId) -> bool {
        questions::reopening(&self.parts, client).is_some()
    }

    /// Whether a client's pool was open before, and the client is saying what it still wants of it.
    pub fn is_said_again(&self, client: ClientId) -> bool {
        questions::reopening(&self.parts, client).is_some_and(|reopening| !reopening.is_complete())
    }

    /// Whether it has said all of that, and the pool waits for the agents that it ran at.
    pub fn is_about_to_go_on(&self, client: ClientId) -> bool {
        questions::reopening(&self.parts, client).is_some_and(Reopening::is_complete)
    }

    /// A client that has a pool of the program with this digest, and is none of `except`.
    pub fn client_with_program(&self, digest: &[u8], except: &[ClientId]) -> Option<ClientId> {
        questions::client_with_program(&self.parts, digest, except)
    }
}
