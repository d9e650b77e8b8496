//! The entry points of the coordinator. They contain no logic.

use std::collections::BTreeSet;

use farpool_core::{Core, JobId};
use farpool_proto::v1::{AgentEvent, ClientMessage, StatusReply, agent_command};

use crate::config::Config;
use crate::convert::{self, Ticket};
use crate::inputs::{agent, client, queries, status};
use crate::outbox::Outbox;
use crate::parts::Parts;
use crate::parts::former::PoolRecovery;
use crate::refused::Refused;
use crate::round::{Notes, Report, Round};
use crate::steps::review::end_and_review;
use crate::steps::{follow, recovery, settling};
use crate::{AgentId, ClientId, Principal};

/// All state of a coordinator; see the [crate's](crate) description for how to drive it.
///
/// `now` is always a time in ns from one monotonic clock.
pub struct Coordinator {
    config: Config,
    core: Core,
    parts: Parts,
    notes: Notes,
}

impl Coordinator {
    /// Creates a coordinator without connections.
    pub fn new(config: Config) -> Self {
        let config = Config { window: config.window.max(1), ..config };
        Self { core: Core::new(config.core.clone()), config, parts: Parts::default(), notes: Notes::default() }
    }

    /// Handles one input, and everything that follows from it.
    #[inline]
    fn round<T>(&mut self, now: u64, out: &mut Outbox, happens: impl FnOnce(&mut Parts, &mut Round<'_>) -> T) -> T {
        let mut round = Round::new(now, &self.config, &mut self.core, out, &mut self.notes);
        let answer = happens(&mut self.parts, &mut round);
        end_and_review(&mut self.parts, &mut round);
        debug_assert!(self.notes.is_empty(), "notes are handled in the same round");
        answer
    }
}

/// Sessions.
impl Coordinator {
    /// Begins a client's session; what it opens belongs to `owner`.
    pub fn connect_client(&mut self, owner: Principal) -> ClientId {
        self.parts.clients.connect(owner)
    }

    /// Begins an agent's session.
    pub fn connect_agent(&mut self) -> AgentId {
        self.parts.agents.connect()
    }

    /// Handles a client's message.
    ///
    /// # Errors
    /// If the message is not allowed. Then nothing has changed; end the session and call
    /// [`client_gone`](Self::client_gone).
    pub fn client_message(
        &mut self,
        from: ClientId,
        message: ClientMessage,
        now: u64,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let message = convert::from_client(message)?;
        self.round(now, out, |parts, round| client::receive(parts, round, from, message))
    }

    /// Handles an agent's message.
    ///
    /// # Errors
    /// If the message is not allowed. Then nothing has changed; end the session and call
    /// [`agent_gone`](Self::agent_gone).
    pub fn agent_event(&mut self, from: AgentId, event: AgentEvent, now: u64, out: &mut Outbox) -> Result<(), Refused> {
        let event = convert::from_agent(event)?;
        self.round(now, out, |parts, round| agent::receive(parts, round, from, event))
    }

    /// A client's session has ended for any reason: its jobs are dropped and its workers stopped.
    pub fn client_gone(&mut self, client: ClientId, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| client::gone(parts, round, client));
    }

    /// An agent's session has ended for any reason: what it held runs elsewhere, if it may.
    pub fn agent_gone(&mut self, agent: AgentId, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| agent::gone(parts, round, agent));
    }

    /// Sets whether the agent's connection is lost. It may reconnect: meanwhile it keeps what it has and gets nothing
    /// new.
    pub fn agent_away(&mut self, agent: AgentId, away: bool, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| agent::away(parts, round, agent, away));
    }

    /// Messages for the client were taken from the outbox. `last` is the number of the last one; messages are counted
    /// from 1 over the whole session.
    pub fn client_numbered(&mut self, client: ClientId, last: u64) {
        client::numbered(&mut self.parts, client, last);
    }

    /// The client has acknowledged its messages up to this one.
    pub fn client_acknowledged(&mut self, client: ClientId, last: u64, now: u64, out: &mut Outbox) {
        self.round(now, out, |parts, round| client::acknowledged(parts, round, client, last));
    }

    /// Sets whether the client's pool is paused because the client does not read its messages. Nothing of a paused pool
    /// is handed out; chunks at agents continue.
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
    /// Hands out what can run: one message for each agent with all its new chunks. Call this once after all waiting
    /// messages have been handled, and before the outbox is drained.
    pub fn schedule(&mut self, now: u64, out: &mut Outbox) {
        self.round(now, out, recovery::handle_deadlines);
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
        let unfinished = |client| clients.get(client).is_some_and(|client| client.item_bytes() > 0);
        for (agent, lend) in lends.update(unfinished, |agent| agents.session_of(agent)) {
            out.agent(agent, agent_command::Body::LendSlot(lend));
        }
    }

    /// Returns when to call [`schedule`](Self::schedule) again even if no message arrives; `None`: not before one
    /// arrives.
    pub fn next_due(&self) -> Option<u64> {
        self.core.next_due().into_iter().chain(self.next_deadline()).min()
    }

    /// Returns the part of [`next_due`](Self::next_due) that must not be late: the end of a recovery timeout.
    pub fn next_deadline(&self) -> Option<u64> {
        self.parts.deadlines.next()
    }
}

/// What operators see and do.
impl Coordinator {
    /// Returns the status of agents, pools and jobs, the oldest first, and at most this many pools and jobs. The server
    /// fills in what only it knows.
    pub fn status(&self, now: u64, most: usize) -> StatusReply {
        let late_messages = self.late_messages();
        StatusReply { late_messages, ..status::status(&self.parts, &self.core, now, most) }
    }

    /// Returns the client of each pool in [`status`](Self::status).
    pub fn pool_clients(&self) -> impl Iterator<Item = (String, ClientId)> {
        self.parts.pools.iter().map(|(_, pool)| (pool.spec().name.to_string(), pool.client()))
    }

    /// Finds the agent that an operator names, by its id, or by the name of its host if no other agent has that.
    /// Returns its id also as text.
    ///
    /// # Errors
    /// The agents that exist.
    pub fn find_agent(&self, text: &str) -> Result<(AgentId, String), String> {
        queries::find_agent(&self.parts, text)
    }

    /// Finds the open job that an operator names, by its number as it is shown: "2", not "02" or "+2".
    ///
    /// # Errors
    /// The jobs that exist.
    pub fn find_job(&self, text: &str) -> Result<JobId, String> {
        queries::find_job(&self.parts, text)
    }

    /// Has an agent finish what runs, give back the rest, and leave; the command is sent once. Returns false if there
    /// is no such agent.
    pub fn drain_agent(&mut self, id: AgentId, now: u64, out: &mut Outbox) -> bool {
        self.round(now, out, |parts, round| agent::drain(parts, round, id))
    }

    /// Cancels a job as its client could. Returns false if there is no such job.
    pub fn cancel_job(&mut self, job: JobId, now: u64, out: &mut Outbox) -> bool {
        let is_there = self.parts.jobs.get(job).is_some();
        self.round(now, out, |parts, round| follow::cancel(parts, round, job));
        is_there
    }
}

/// Queries of the server.
impl Coordinator {
    /// Returns how many messages were dropped because they came too late: outcomes of old attempts, and messages about
    /// ended jobs and pools.
    pub fn late_messages(&self) -> u64 {
        self.notes.late_messages() + self.core.stale_reports()
    }

    /// Returns the memory for items without outcomes: their bytes and positions, and an overhead for each message of
    /// them.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.clients.item_bytes()
    }

    /// Returns the part of [`stored_bytes`](Self::stored_bytes) that belongs to a client.
    pub fn stored_bytes_of(&self, client: ClientId) -> u64 {
        self.parts.clients.get(client).map_or(0, |client| client.item_bytes())
    }

    /// Returns the memory for unfinished jobs, not counting their items.
    pub fn job_bytes(&self) -> u64 {
        self.parts.clients.job_bytes()
    }

    /// Returns the part of [`job_bytes`](Self::job_bytes) that belongs to a client.
    pub fn job_bytes_of(&self, client: ClientId) -> u64 {
        self.parts.clients.get(client).map_or(0, |client| client.job_bytes())
    }

    /// Whether no pool has a job, or a worker at any agent.
    pub fn is_idle(&self) -> bool {
        self.parts.pools.is_empty()
    }

    /// Whether slots are idle because no queued items can run on them.
    pub fn idles(&self) -> bool {
        self.core.idles()
    }

    /// Whether a client's pool runs on an agent, or ran on one before it was opened again: then more items may be
    /// useful.
    pub fn has_place(&self, client: ClientId) -> bool {
        queries::has_place(&self.parts, &self.core, client)
    }

    /// Whether places of the client's pool wait for an acknowledgement of the client before they start.
    pub fn has_pending_places(&self, client: ClientId) -> bool {
        queries::pool_of(&self.parts, client).is_some_and(|pool| pool.places.has_pending())
    }

    /// Whether the client must send more before anything can run: the rest of an explicit chunk, or of what it resends
    /// of a pool that was open before.
    pub fn lacks_chunk(&self, client: ClientId) -> bool {
        queries::lacks_chunk(&self.parts, client)
    }

    /// Whether a client has a job that has nothing queued and may get more items.
    pub fn lacks_items(&self, client: ClientId) -> bool {
        queries::lacks_items(&self.parts, client)
    }

    /// Whether a client has shared values, which only it can free.
    pub fn shares_values(&self, client: ClientId) -> bool {
        queries::shares_values(&self.parts, client)
    }

    /// Whether the client's pool was open before, and is not fully reopened.
    pub fn is_reopening(&self, client: ClientId) -> bool {
        queries::reopening(&self.parts, client).is_some()
    }

    /// Whether a client's pool was open before, and the client is still resending what it needs of it.
    pub fn is_resending(&self, client: ClientId) -> bool {
        queries::reopening(&self.parts, client).is_some_and(|reopening| !reopening.is_complete())
    }

    /// Whether the client has resent everything, and the pool waits for the agents that it ran at.
    pub fn waits_for_agents(&self, client: ClientId) -> bool {
        queries::reopening(&self.parts, client).is_some_and(PoolRecovery::is_complete)
    }

    /// Returns a client that has a pool of the program with this digest and is not in `except`.
    pub fn client_with_program(&self, digest: &[u8], except: &[ClientId]) -> Option<ClientId> {
        queries::client_with_program(&self.parts, digest, except)
    }
}
