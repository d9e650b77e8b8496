//! The scheduler: its state, and which part of it handles an event.

use crate::action::Action;
use crate::agent::Credit;
use crate::chunk::Chunk;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::heap::Positions;
use crate::ids::{AgentId, ChunkId, JobId, LaneId, PoolId};
use crate::job::Job;
use crate::lane::Lane;
use crate::pool::{Pool, Stage};
use crate::reach::Reaches;
use crate::run_report::RunReport;
use crate::shares::Shares;
use crate::slab::{Slab, Table};

/// Settings of the scheduler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long an adaptive chunk should keep a worker busy, in ns. A shorter time costs more messages. A longer time
    /// means more waiting at the end of a job, and results that arrive in bursts.
    pub chunk_target_ns: u64,
    /// How large an adaptive chunk may be, unless a single item is larger. It bounds how long sending one chunk takes.
    pub chunk_target_bytes: u64,
    /// Check all invariants after every event in debug builds. The time it takes grows with the number of jobs. For
    /// farpool's own tests.
    pub check: bool,
}

impl Config {
    /// Returns the default with all checks on, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn checked() -> Self {
        Self { check: true, ..Self::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { chunk_target_ns: 1_000_000, chunk_target_bytes: 1 << 20, check: false }
    }
}

/// The scheduler. See the [crate's](crate) description.
#[derive(Default)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) jobs: Table<JobId, Job>,
    pub(crate) pools: Table<PoolId, Pool>,
    pub(crate) lanes: Slab<LaneId, Lane>,
    /// The positions of jobs among those of their lane that have something to run.
    pub(crate) turns: Positions,
    pub(crate) fleet: Fleet,
    pub(crate) reaches: Reaches,
    pub(crate) shares: Shares,
    pub(crate) chunks: Slab<ChunkId, Chunk>,
    pub(crate) stale_reports: u64,
    /// Number of jobs that were opened, modulo 2^32.
    pub(crate) opened_jobs: u32,
    /// Number of open jobs that may have second copies of chunks.
    pub(crate) speculating: usize,
    /// Pools that already ran somewhere when they were opened. Their workers stay where they are until it is known what
    /// is held there.
    pub(crate) resumed: Vec<PoolId>,
    /// When to look for late chunks again, and the chunk to continue after.
    pub(crate) next_late_check: u64,
    pub(crate) late_cursor: u32,
}

/// Where the items of a job are. Those that are neither queued nor have their outcome are at agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items that have arrived.
    pub arrived: u64,
    /// Items that have their outcome.
    pub outcomes: u64,
    /// Items that wait to be handed out.
    pub queued: u64,
}

impl Core {
    /// Creates an empty scheduler.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Handles an event and adds the actions that follow to `actions`. It hands out no chunks: see
    /// [`schedule`](Self::schedule).
    ///
    /// # Panics
    /// If an event other than an agent's report does not fit, such as a duplicate or unknown id or items out of order.
    /// Those events come from the caller's own state.
    pub fn handle(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::RunDone { agent, chunk, attempt, first, count, busy_ns, failed } => {
                self.run_done((agent, chunk, attempt), RunReport { first, count, busy_ns, failed }, actions);
            }
            Event::ItemFaulted { agent, chunk, attempt, item, fault } => {
                self.item_faulted((agent, chunk, attempt), item, fault, actions);
            }
            Event::Returned { agent, chunk, attempt, first, count } => {
                self.returned((agent, chunk, attempt), first, count, actions);
            }
            Event::ItemsArrived { job, first, count, bytes } => self.items_arrived(job, first, count, bytes),
            Event::InputEnded { job } => self.input_ended(job, actions),
            Event::JobOpened { job, pool, policy, require } => self.open_job(job, pool, policy, &require, actions),
            Event::RetriesStopped { job } => self.stop_retries(job),
            Event::JobCancelled { job } => self.cancel_job(job, actions),
            Event::ResendComplete { job } => self.resend_complete(job),
            Event::FailQueued { job } => self.fail_queued(job, actions),
            Event::PoolOpened { pool, slots, weight, require, held } => {
                self.open_pool(pool, slots, weight, require, actions, &held);
            }
            Event::PoolPaused { pool, paused } => self.pause_pool(pool, paused),
            Event::PoolClosed { pool } => self.close_pool(pool, actions),
            Event::PlaceStarted { pool, agent } => self.place_started(pool, agent),
            Event::PlaceUnhealthy { pool, agent } => self.set_place_unhealthy(pool, agent, actions),
            Event::PlaceUnfit { pool, agent } => self.place_unfit(pool, agent, actions),
            Event::PlaceStopped { pool, agent } => self.place_stopped(pool, agent, actions),
            Event::AgentJoined { agent, slots, labels } => self.join_agent(agent, slots, labels, actions),
            Event::AgentCredit { agent, chunks, bytes } => {
                let set = self.fleet.set_credit(agent, Credit { chunks, bytes }, &mut self.reaches);
                assert!(set, "credit of {agent:?}, which does not exist");
            }
            Event::AgentHealthChanged { agent, unhealthy } => self.set_unhealthy(agent, unhealthy, actions),
            Event::AgentDraining { agent } => self.drain_agent(agent, actions),
            Event::AgentLost { agent } => self.lose_agent(agent, actions),
        }
        self.check_in_debug();
    }

    /// Hands out what can run and adds that to `actions`. Call this after a batch of events: the more is known, the
    /// better the chunks. `now` is a time in ns from one monotonic clock.
    pub fn schedule(&mut self, now: u64, actions: &mut Vec<Action>) {
        while let Some(pool) = self.resumed.pop() {
            self.move_resumed_workers(pool, actions);
        }
        self.hand_out(now, actions);
        self.take_back(now, actions);
        self.check_in_debug();
    }

    /// Returns how many reports were dropped because the agent did not hold what they were about.
    pub fn stale_reports(&self) -> u64 {
        self.stale_reports
    }

    /// Returns how many chunks are at agents.
    pub fn chunks_held(&self) -> usize {
        self.chunks.len()
    }

    /// Returns when to schedule again even if nothing happens; `None`: not before something does. Idle slots may then
    /// get items of a chunk that takes too long, or run a copy of it.
    pub fn next_due(&self) -> Option<u64> {
        (self.fleet.idle > 0 && !self.chunks.is_empty()).then_some(self.next_late_check)
    }

    /// Whether slots are idle because nothing that is queued can run on them.
    pub fn idles(&self) -> bool {
        self.fleet.idle > 0
    }

    /// Returns how many chunks the agent holds.
    pub fn chunks_at(&self, agent: AgentId) -> u32 {
        self.fleet.agents.get(agent).map_or(0, |agent| agent.count)
    }

    /// Returns the progress of a job, if it is open.
    pub fn progress(&self, job: JobId) -> Option<Progress> {
        let job = self.jobs.get(job)?;
        Some(Progress { arrived: job.arrived, outcomes: job.outcomes, queued: job.queue.items() })
    }

    /// Returns how many workers the pool may have at all its places, including places that are still starting.
    pub fn workers_of(&self, pool: PoolId) -> u64 {
        self.pools.get(pool).map_or(0, |pool| pool.offered)
    }

    /// Returns the agents that the pool is to run on, and whether each has started it.
    pub fn agents_of(&self, pool: PoolId) -> impl Iterator<Item = (AgentId, bool)> {
        let places = self.pools.get(pool).into_iter().flat_map(|pool| pool.places.iter());
        let open = places.filter(|(_, place)| !place.retired);
        open.map(|(_, place)| (place.agent, place.stage == Stage::Ready))
    }

    /// Returns a job of the pool that requires labels that none of its places has.
    pub fn job_without_place(&self, pool: PoolId) -> Option<JobId> {
        let pool = self.pools.get(pool).filter(|pool| pool.lanes.len() > 1)?;
        let lane = pool.lanes[1..].iter().copied().find(|&lane| {
            let Some(lane) = self.lanes.get(lane).filter(|lane| lane.open_jobs > 0) else { return false };
            let fits = |agent| self.fleet.agents.get(agent).is_some_and(|agent| agent.labels.include(&lane.require));
            !pool.places.iter().any(|(_, place)| !place.retired && fits(place.agent))
        })?;
        self.jobs.iter().find(|(_, job)| job.lane == lane).map(|(id, _)| id)
    }

    /// Returns how many jobs are not finished.
    pub fn open_jobs(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn check_in_debug(&self) {
        // Off in debug builds of farpool's users: it looks at everything after each event.
        if cfg!(debug_assertions) && self.config.check {
            self.check();
        }
    }
}
