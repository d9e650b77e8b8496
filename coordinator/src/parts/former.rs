//! What a former coordinator knew, as it comes back: what clients say again, what agents hold, and until when it is waited for.
//!
//! What a client says again of its pool is kept, and the core hears nothing of it, until all of it is here and
//! all agents are back at which the pool ran; or until the recovery time is over, and whoever is not back is not waited for.

use std::collections::VecDeque;
use std::time::Duration;

use farpool_core::{JobId, JobPolicy, Labels, PoolId};

use crate::AgentId;
use crate::convert::HeldPool;
use crate::ids::{Identity, PoolKey};

/// What the core will be told of a pool, beside the items of its jobs.
pub(crate) struct Reopening {
    /// None: the core is being told of it.
    former: Option<Former>,
    /// Those of the agents at which it ran that hold it.
    held_at: Vec<AgentId>,
    /// Whether the client has sent all that it still wants.
    complete: bool,
    /// The recovery time is over.
    overdue: bool,
}

/// A pool as a former coordinator had it.
pub(crate) struct Former {
    pub(crate) require: Labels,
    /// The agents that it ran at, as far as its client knows.
    pub(crate) agents: Vec<Identity>,
    pub(crate) jobs: Vec<NewJob>,
}

/// A job, as the core is told of it.
pub(crate) struct NewJob {
    pub(crate) job: JobId,
    pub(crate) policy: JobPolicy,
    pub(crate) require: Labels,
    /// Items before this one may have been at a coordinator before this one, and at agents. The others never left the client.
    pub(crate) resent_to: u64,
}

impl NewJob {
    pub(crate) fn new(job: JobId, policy: JobPolicy, require: Labels) -> Self {
        Self { job, policy, require, resent_to: 0 }
    }
}

impl Reopening {
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

    /// The client has sent all that it still wants. `next`: the item behind those of a job that are here. False: that was said already.
    pub(crate) fn complete(&mut self, next: impl Fn(JobId) -> u64) -> bool {
        for new in self.former.iter_mut().flat_map(|former| &mut former.jobs).filter(|_| !self.complete) {
            new.resent_to = next(new.job);
        }
        !std::mem::replace(&mut self.complete, true)
    }

    /// Whether more comes that no window bounds.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Nobody is waited for any longer.
    pub(crate) fn stop_waiting(&mut self) {
        self.overdue = true;
    }

    /// How many agents at which the pool ran are not back.
    pub(crate) fn missing(&self, is_back: impl Fn(&Identity) -> bool) -> usize {
        self.former.iter().flat_map(|former| &former.agents).filter(|agent| !is_back(agent)).count()
    }

    /// Takes out what the core is to be told, if the pool need not wait any longer. It stays marked until the core knows all
    /// of it.
    pub(crate) fn take(&mut self, is_back: impl Fn(&Identity) -> bool) -> Option<Former> {
        let waits = !self.complete || !(self.overdue || self.missing(is_back) == 0);
        if waits { None } else { self.former.take() }
    }

    /// The agents that go on with it, of which the client knows.
    pub(crate) fn set_held_at(&mut self, agents: Vec<AgentId>) {
        self.held_at = agents;
    }

    /// Whether the agent goes on with it, of which the client knows.
    pub(crate) fn is_held_at(&self, agent: AgentId) -> bool {
        self.held_at.contains(&agent)
    }
}

/// The pools that an agent runs for sessions that have ended, and that nobody has claimed or given up so far.
#[derive(Default)]
pub(crate) struct Held {
    pools: Vec<HeldPool>,
}

impl Held {
    pub(crate) fn new(pools: Vec<HeldPool>) -> Self {
        Self { pools }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// With how many workers it holds the pool; 0: as many as it has slots.
    pub(crate) fn workers_of(&self, pool: &PoolKey) -> Option<u32> {
        Some(self.pools.iter().find(|held| held.key == *pool)?.workers)
    }

    /// Takes out what it holds of the pool.
    pub(crate) fn take(&mut self, pool: &PoolKey) -> Option<HeldPool> {
        let at = self.pools.iter().position(|held| held.key == *pool)?;
        Some(self.pools.remove(at))
    }

    /// Takes out all pools but these.
    pub(crate) fn take_all_but(&mut self, stays: impl Fn(&PoolKey) -> bool) -> Vec<HeldPool> {
        self.pools.extract_if(.., |held| !stays(&held.key)).collect()
    }
}

/// Who is waited for, and until when.
#[derive(Default)]
pub(crate) struct Deadlines {
    // Rising: all are waited for equally long.
    all: VecDeque<(u64, Awaiting)>,
}

pub(crate) enum Awaiting {
    /// Those at which the pool ran.
    Agents(PoolId),
    /// Those whose pools the agent holds.
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
