//! The coordinator: its state, its clock and its doors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farpool_core::{Action, Core, JobId, PoolId, Slab};
use farpool_proto::v1::{AgentEvent, ClientMessage, agent_command};

use crate::adopt::Adopting;
use crate::agents::Agent;
use crate::clients::Client;
use crate::convert::{self, Ticket};
use crate::ids::{Identity, PoolKey};
use crate::jobs::Job;
use crate::labels::LabelBook;
use crate::lends::Lends;
use crate::outbox::Outbox;
use crate::pools::Pool;
use crate::refused::Refused;
use crate::reopen::Deadlines;
use crate::{AgentId, ClientId, Principal};

/// What can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How the scheduler works.
    pub core: farpool_core::Config,
    /// Chunks that an agent may hold at once, whatever it asks for.
    pub max_agent_chunks: u32,
    /// Bytes of a job's items, their positions included, that may be here at once; one message, or an explicit chunk,
    /// may go beyond it. At least 1.
    pub window: u64,
    /// Bytes that an item or a result may have, whatever its pool allows.
    pub payload_limit: u64,
    /// What tells this coordinator from one that was here before; none in local mode.
    pub id: Option<[u8; 16]>,
    /// How long those are waited for that know what a former coordinator knew: pools for the agents that they ran at, and
    /// agents for the clients whose pools they hold.
    pub recovery: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            core: farpool_core::Config::default(),
            max_agent_chunks: 65_536,
            window: 64 << 20,
            payload_limit: farpool_proto::limits::PAYLOAD_BYTES,
            id: None,
            recovery: Duration::from_secs(5),
        }
    }
}

/// All state of a coordinator; see the [crate's](crate) description for how to drive it.
///
/// `now` is everywhere a time in ns from one clock that does not go back.
pub struct Coordinator {
    pub(crate) core: Core,
    pub(crate) config: Config,
    pub(crate) clients: Slab<ClientId, Client>,
    pub(crate) agents: Slab<AgentId, Agent>,
    pub(crate) pools: Slab<PoolId, Pool>,
    pub(crate) jobs: Slab<JobId, Job>,
    /// Those of agents that have said hello, and of pools that are there; of two, the newer.
    pub(crate) agent_ids: BTreeMap<Identity, AgentId>,
    pub(crate) pool_keys: BTreeMap<PoolKey, PoolId>,
    pub(crate) deadlines: Deadlines,
    /// What the items of all jobs take.
    pub(crate) stored: u64,
    /// What the jobs take beside.
    pub(crate) opened: u64,
    /// What operators will call the next job, or pool.
    pub(crate) next_name: u64,
    pub(crate) late_messages: u64,
    pub(crate) labels: LabelBook,
    pub(crate) lends: Lends,
    pub(crate) now: u64,
    /// Whose report is being taken in, and which it is, until it is known what becomes of it.
    pub(crate) reporting: Option<(AgentId, u64)>,
    /// Pools that agents are being told to adopt.
    pub(crate) adopting: Vec<Adopting>,
    // Kept for their memory.
    pub(crate) actions: Vec<Action>,
    pub(crate) to_flush: Vec<AgentId>,
    /// Pools whose clients may have to be told something.
    pub(crate) to_review: Vec<PoolId>,
    /// Agents of which reports came to nothing, and places whose reports may have been settled, in this round.
    pub(crate) stray: Vec<AgentId>,
    pub(crate) to_settle: Vec<(AgentId, PoolId)>,
}

impl Coordinator {
    /// A coordinator to which nobody is connected.
    pub fn new(config: Config) -> Self {
        let config = Config { window: config.window.max(1), ..config };
        Self {
            core: Core::new(config.core.clone()),
            config,
            clients: Slab::default(),
            agents: Slab::default(),
            pools: Slab::default(),
            jobs: Slab::default(),
            agent_ids: BTreeMap::new(),
            pool_keys: BTreeMap::new(),
            deadlines: Deadlines::default(),
            stored: 0,
            opened: 0,
            next_name: 1,
            late_messages: 0,
            labels: LabelBook::default(),
            lends: Lends::default(),
            now: 0,
            reporting: None,
            adopting: Vec::new(),
            actions: Vec::new(),
            to_flush: Vec::new(),
            to_review: Vec::new(),
            stray: Vec::new(),
            to_settle: Vec::new(),
        }
    }

    /// A client's session begins; what it opens belongs to `owner`.
    pub fn connect_client(&mut self, owner: Principal) -> ClientId {
        self.clients.insert(Client::of(owner))
    }

    /// An agent's session begins.
    pub fn connect_agent(&mut self) -> AgentId {
        self.agents.insert(Agent::default())
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
        self.now = now;
        let message = convert::from_client(message)?;
        self.client_says(from, message, out)
    }

    /// Takes in an agent's message.
    ///
    /// # Errors
    /// If the message must not have been sent. Nothing has happened then; end the session and call
    /// [`agent_gone`](Self::agent_gone).
    pub fn agent_event(&mut self, from: AgentId, event: AgentEvent, now: u64, out: &mut Outbox) -> Result<(), Refused> {
        self.now = now;
        let event = convert::from_agent(event)?;
        self.agent_says(from, event, out)
    }

    /// A client's session has ended, in whatever way: its jobs are dropped and its workers stopped.
    pub fn client_gone(&mut self, client: ClientId, now: u64, out: &mut Outbox) {
        self.now = now;
        self.forget_client(client, out);
    }

    /// An agent's session has ended, in whatever way: what it held runs elsewhere, as far as it may.
    pub fn agent_gone(&mut self, agent: AgentId, now: u64, out: &mut Outbox) {
        self.now = now;
        self.forget_agent(agent, out);
    }

    /// Hands out what can run: one message for each agent with all its new chunks. To be called once after all
    /// messages that were there have been taken in, and before the outbox is drained.
    pub fn schedule(&mut self, now: u64, out: &mut Outbox) {
        self.now = now;
        self.look_at_deadlines(out);
        self.core.schedule(now, &mut self.actions);
        self.follow(None, out);
        self.flush(out);
        self.settle(out);
        self.lend_slots(out);
    }

    /// Replaces the tickets of all clients that wait for unfinished detached jobs: slots are lent for them.
    pub fn lend_to_attached(&mut self, tickets: BTreeSet<Ticket>) {
        self.lends.set_attached(tickets);
    }

    fn lend_slots(&mut self, out: &mut Outbox) {
        let unfinished = |client| self.clients.get(client).is_some_and(|client| client.stored > 0);
        let session = |agent: &Identity| self.agent_ids.get(agent).copied();
        for (agent, lend) in self.lends.update(unfinished, session) {
            out.agent(agent, agent_command::Body::LendSlot(lend));
        }
    }

    /// When to call [`schedule`](Self::schedule) again although nothing has come; none: not before something comes.
    pub fn next_look(&self) -> Option<u64> {
        self.core.next_look().into_iter().chain(self.next_deadline()).min()
    }

    /// That of [`next_look`](Self::next_look) which must not be later: when those have had their time who are waited for.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// Messages that came too late to mean anything and were dropped: outcomes of old attempts, words about jobs and
    /// pools that had ended.
    pub fn late_messages(&self) -> u64 {
        self.late_messages + self.core.stale_reports()
    }

    /// What items that wait for their outcomes take: their bytes and positions, and some for each message of them.
    pub fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// The part of [`stored_bytes`](Self::stored_bytes) that is a client's.
    pub fn stored_bytes_of(&self, client: ClientId) -> u64 {
        self.clients.get(client).map_or(0, |client| client.stored)
    }

    /// What jobs take that have not ended, beside their items.
    pub fn job_bytes(&self) -> u64 {
        self.opened
    }

    /// The part of [`job_bytes`](Self::job_bytes) that is a client's.
    pub fn job_bytes_of(&self, client: ClientId) -> u64 {
        self.clients.get(client).map_or(0, |client| client.opened)
    }

    /// Whether nothing is left of any pool: no job, and no worker at any agent.
    pub fn is_idle(&self) -> bool {
        self.pools.is_empty()
    }
}
