//! The scheduler: its state, and which part of it an event goes to.

use crate::action::Action;
use crate::chunk::Chunk;
use crate::event::Event;
use crate::fair::Jobs;
use crate::fleet::Fleet;
use crate::ids::{AgentId, ChunkId, JobId};
use crate::slab::Slab;

/// What can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How long an adaptive chunk should keep a worker busy, in ns. Shorter: more messages. Longer: more waiting at
    /// the end of a job, and results that come in lumps.
    pub chunk_target_ns: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { chunk_target_ns: 1_000_000 }
    }
}

/// Where the items of a job are: those that are neither queued nor have had their outcome are at agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items that have come.
    pub arrived: u64,
    /// Items that have had their outcome.
    pub outcomes: u64,
    /// Items that wait.
    pub queued: u64,
}

/// The scheduler. See the [crate's](crate) description.
#[derive(Default)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) jobs: Jobs,
    pub(crate) fleet: Fleet,
    pub(crate) chunks: Slab<ChunkId, Chunk>,
    pub(crate) stale_reports: u64,
    /// When to look for late chunks again.
    pub(crate) next_late_look: u64,
}

impl Core {
    /// A scheduler that knows of nothing yet.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes in what happened and adds what follows from it to `actions`. Hands out nothing: see
    /// [`schedule`](Self::schedule).
    ///
    /// # Panics
    /// If an event that is not an agent's report does not fit: an id given out twice or not known, items out of order.
    /// Those come from the caller's own books.
    pub fn handle(&mut self, event: Event, _now: u64, actions: &mut Vec<Action>) {
        match event {
            Event::RunDone { agent, chunk, attempt, first, count, busy_ns } => {
                self.run_done((agent, chunk, attempt), first, count, busy_ns, actions);
            }
            Event::ItemFaulted { agent, chunk, attempt, item, fault } => {
                self.item_faulted((agent, chunk, attempt), item, fault, actions);
            }
            Event::Returned { agent, chunk, attempt, first, count } => {
                self.returned((agent, chunk, attempt), first, count);
            }
            Event::ItemsArrived { job, first, count } => self.items_arrived(job, first, count),
            Event::InputEnded { job } => self.input_ended(job, actions),
            Event::JobOpened { job, pool, policy } => self.open_job(job, pool, policy),
            Event::JobCancelled { job } => self.cancel_job(job, actions),
            Event::PoolOpened { pool, slots, weight } => self.open_pool(pool, slots, weight),
            Event::PoolPaused { pool, paused } => self.pause_pool(pool, paused),
            Event::PoolClosed { pool } => self.close_pool(pool, actions),
            Event::AgentJoined { agent, slots } => self.fleet.join(agent, slots),
            Event::AgentCredit { agent, chunks } => {
                assert!(self.fleet.set_credit(agent, chunks), "credit of {agent:?}, which is not there");
            }
            Event::AgentDraining { agent } => self.fleet.drain(agent),
            Event::AgentLost { agent } => self.lose_agent(agent, actions),
        }
        self.check_in_debug();
    }

    /// Hands out what can run and adds that to `actions`. To be called after a batch of events: the more is known,
    /// the better the pieces. `now` is a time in ns from one clock that does not go back.
    pub fn schedule(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.hand_out(now, actions);
        self.take_back(now, actions);
        self.check_in_debug();
    }

    /// Reports that were dropped because they were about something that the agent did not hold.
    pub fn stale_reports(&self) -> u64 {
        self.stale_reports
    }

    /// Chunks that are at agents.
    pub fn chunks_held(&self) -> usize {
        self.chunks.len()
    }

    /// When to schedule again although nothing has happened: slots idle, and a chunk that takes too long may have items
    /// for them.
    pub fn next_look(&self) -> Option<u64> {
        (self.fleet.unserved() > 0 && !self.chunks.is_empty()).then_some(self.next_late_look)
    }

    /// How many chunks the agent holds.
    pub fn chunks_at(&self, agent: AgentId) -> u32 {
        self.fleet.agents.get(agent).map_or(0, |agent| agent.count)
    }

    /// How far a job has come, if it is open.
    pub fn progress(&self, job: JobId) -> Option<Progress> {
        let job = self.jobs.jobs.get(job)?;
        Some(Progress { arrived: job.arrived, outcomes: job.outcomes, queued: job.queue.items() })
    }

    /// Jobs that are not finished.
    pub fn open_jobs(&self) -> usize {
        self.jobs.jobs.len()
    }

    fn check_in_debug(&self) {
        #[cfg(debug_assertions)]
        self.check();
    }
}
