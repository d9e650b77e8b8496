//! State of a previous coordinator, restored from what clients resend and what agents hold, and the deadlines for that.
//!
//! What a client resends of its pool is withheld from the core until all of it has arrived and all agents that ran the
//! pool have reconnected. After the recovery timeout, the pool no longer waits for missing agents.

use std::collections::VecDeque;
use std::time::Duration;

use farpool_core::{JobId, JobPolicy, Labels, PoolId};

use crate::AgentId;
use crate::convert::HeldPool;
use crate::ids::{Identity, PoolKey};

/// The facts about a pool that the core will get, besides the items of its jobs.
pub(crate) struct PoolRecovery {
    /// `None`: it is being passed to the core.
    former: Option<Former>,
    /// The agents that ran the pool and hold it.
    held_at: Vec<AgentId>,
    /// Whether the client has resent everything that it still needs.
    complete: bool,
    /// Whether the recovery timeout is over.
    overdue: bool,
}

/// A pool as a previous coordinator had it.
pub(crate) struct Former {
    pub(crate) require: Labels,
    /// The agents that it ran at, as far as its client knows.
    pub(crate) agents: Vec<Identity>,
    pub(crate) jobs: Vec<NewJob>,
}

/// A job for the core.
pub(crate) struct NewJob {
    pub(crate) job: JobId,
    pub(crate) policy: JobPolicy,
    pub(crate) require: Labels,
    /// Items below this may have been at a previous coordinator and at agents. The others never left the client.
    pub(crate) resent_to: u64,
}

impl NewJob {
    pub(crate) fn new(job: JobId, policy: JobPolicy, require: Labels) -> Self {
        Self { job, policy, require, resent_to: 0 }
    }
}

impl PoolRecovery {
    pub(crate) fn new(agents: Vec<Identity>, require: Labels) -> Self {
        let former = Some(Former { require, agents, jobs: Vec::new() });
        Self { former, held_at: Vec::new(), complete: false, overdue: false }
    }

    pub(crate) fn add(&mut self, job: NewJob) {
        if let Some(former) = &mut self.former {
            former.jobs.push(job);
        }
    }

    /// Stops retries of a job that the core does not know yet.
    pub(crate) fn stop_retries(&mut self, id: JobId) {
        let jobs = self.former.iter_mut().flat_map(|former| &mut former.jobs);
        for new in jobs.filter(|new| new.job == id) {
            (new.policy.retry_panics, new.policy.retry_failed) = (false, false);
        }
    }

    /// The client has resent everything that it still needs. `next` returns one above the highest index that has
    /// arrived of a job. Returns false if this was reported already.
    pub(crate) fn complete(&mut self, next: impl Fn(JobId) -> u64) -> bool {
        for new in self.former.iter_mut().flat_map(|former| &mut former.jobs).filter(|_| !self.complete) {
            new.resent_to = next(new.job);
        }
        !std::mem::replace(&mut self.complete, true)
    }

    /// Whether the client has resent everything. Before that, it may exceed the window.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The recovery timeout is over.
    pub(crate) fn stop_waiting(&mut self) {
        self.overdue = true;
    }

    /// Returns how many agents that ran the pool have not reconnected.
    pub(crate) fn missing(&self, is_connected: impl Fn(&Identity) -> bool) -> usize {
        self.former.iter().flat_map(|former| &former.agents).filter(|agent| !is_connected(agent)).count()
    }

    /// Takes what the core must learn about the pool, if the pool need not wait any longer. The pool still counts as
    /// reopening until the core knows all of it.
    pub(crate) fn take(&mut self, is_connected: impl Fn(&Identity) -> bool) -> Option<Former> {
        let waits = !self.complete || !(self.overdue || self.missing(is_connected) == 0);
        if waits { None } else { self.former.take() }
    }

    /// Sets the agents that resume the pool and that the client knows.
    pub(crate) fn set_held_at(&mut self, agents: Vec<AgentId>) {
        self.held_at = agents;
    }

    /// Whether the agent resumes the pool and the client knows it.
    pub(crate) fn is_held_at(&self, agent: AgentId) -> bool {
        self.held_at.contains(&agent)
    }
}

/// The pools that an agent runs for sessions that have ended, and that were neither claimed nor given up.
#[derive(Default)]
pub(crate) struct HeldPools {
    pools: Vec<HeldPool>,
}

impl HeldPools {
    pub(crate) fn new(pools: Vec<HeldPool>) -> Self {
        Self { pools }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// Returns with how many workers it holds the pool; 0: as many as it has slots.
    pub(crate) fn workers_of(&self, pool: &PoolKey) -> Option<u32> {
        Some(self.pools.iter().find(|held| held.key == *pool)?.workers)
    }

    /// Takes what it holds of the pool.
    pub(crate) fn take(&mut self, pool: &PoolKey) -> Option<HeldPool> {
        let at = self.pools.iter().position(|held| held.key == *pool)?;
        Some(self.pools.remove(at))
    }

    /// Takes all pools for which `stays` is false.
    pub(crate) fn take_all_except(&mut self, stays: impl Fn(&PoolKey) -> bool) -> Vec<HeldPool> {
        self.pools.extract_if(.., |held| !stays(&held.key)).collect()
    }
}

/// Deadlines of pools and agents that wait.
#[derive(Default)]
pub(crate) struct Deadlines {
    // Sorted: all wait equally long.
    all: VecDeque<(u64, Awaiting)>,
}

pub(crate) enum Awaiting {
    /// The pool waits for the agents that it ran at.
    Agents(PoolId),
    /// The agent waits for the clients whose pools it holds.
    Clients(AgentId),
}

impl Deadlines {
    pub(crate) fn next(&self) -> Option<u64> {
        self.all.front().map(|(at, _)| *at)
    }

    pub(crate) fn wait(&mut self, awaiting: Awaiting, now: u64, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.all.push_back((now.saturating_add(time), awaiting));
    }

    pub(crate) fn take_due(&mut self, now: u64) -> Option<Awaiting> {
        if self.next()? > now {
            return None;
        }
        self.all.pop_front().map(|(_, awaiting)| awaiting)
    }
}
