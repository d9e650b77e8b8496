//! The status that operators see.

use std::collections::BTreeMap;

use farpool_core::{Core, JobId, PoolId};
use farpool_proto::v1::{AgentStatus, JobStatus, PoolStatus, StatusReply};

use crate::AgentId;
use crate::convert::Hello;
use crate::ids::id_as_text;
use crate::parts::Parts;
use crate::parts::agents::Agent;
use crate::parts::jobs::Job;
use crate::parts::pools::Pool;

/// Items of a pool that have no outcome.
#[derive(Clone, Copy, Default)]
struct Backlog {
    queued: u64,
    assigned: u64,
}

/// The state to report, and the time.
#[derive(Clone, Copy)]
struct View<'a> {
    parts: &'a Parts,
    core: &'a Core,
    now: u64,
}

/// Returns the status of agents, pools and jobs, the oldest first, and at most this many pools and jobs. The server
/// fills in what only it knows.
pub(crate) fn status(parts: &Parts, core: &Core, now: u64, most: usize) -> StatusReply {
    let view = View { parts, core, now };
    let mut agents: Vec<_> = parts.agents.greeted().collect();
    agents.sort_by_key(|(_, agent, _)| agent.joined_at());
    let mut pools: Vec<_> = parts.pools.iter().collect();
    pools.sort_by_key(|(_, pool)| pool.spec().name);
    let mut jobs: Vec<_> = parts.jobs.iter().collect();
    jobs.sort_by_key(|(_, job)| job.spec().name);
    let left_out = |all: usize| all.saturating_sub(most) as u64;
    let (pools_left_out, jobs_left_out) = (left_out(pools.len()), left_out(jobs.len()));
    pools.truncate(most);
    jobs.truncate(most);
    let backlog = view.backlog();
    StatusReply {
        agents: agents.into_iter().map(|(id, agent, hello)| view.agent_status(id, agent, hello)).collect(),
        pools: pools.into_iter().map(|(id, pool)| view.pool_status(id, pool, &backlog)).collect(),
        jobs: jobs.into_iter().map(|(id, job)| view.job_status(id, job)).collect(),
        pools_left_out,
        jobs_left_out,
        ..StatusReply::default()
    }
}

impl View<'_> {
    fn agent_status(&self, id: AgentId, agent: &Agent, hello: &Hello) -> AgentStatus {
        let chunks = self.core.chunks_at(id);
        AgentStatus {
            agent: id_as_text(hello.id),
            host: hello.host.clone(),
            release: hello.version.as_ref().map_or_else(String::new, |version| version.release.clone()),
            labels: hello.labels.clone(),
            slots: hello.slots,
            busy: chunks.min(hello.slots),
            chunks: chunks.into(),
            draining: agent.is_draining(),
            connected_ns: self.now.saturating_sub(agent.joined_at()),
            items_done: agent.items_done(),
            items_per_second: agent.items_per_second(self.now),
            unhealthy: agent.unhealthy().to_owned(),
            away: agent.is_away(),
        }
    }

    /// Returns for each pool how many items wait for a slot and how many are at agents.
    fn backlog(&self) -> BTreeMap<PoolId, Backlog> {
        let mut backlog = BTreeMap::<PoolId, Backlog>::new();
        for (id, job) in self.parts.jobs.iter() {
            let progress = self.core.progress(id).unwrap_or_default();
            let of_pool = backlog.entry(job.spec().pool).or_default();
            of_pool.queued += progress.queued;
            of_pool.assigned += progress.arrived - progress.outcomes - progress.queued;
        }
        backlog
    }

    /// Returns why nothing of the pool runs; empty: something does, or there is nothing to run.
    fn why_it_waits(&self, id: PoolId, pool: &Pool, backlog: Backlog) -> String {
        if !pool.waiting().is_empty() || backlog.queued == 0 || backlog.assigned > 0 {
            return pool.waiting().to_owned();
        }
        if pool.is_paused() {
            return "its client to read its results".to_owned();
        }
        let (started, starting): (Vec<_>, Vec<_>) = self.core.agents_of(id).partition(|(_, started)| *started);
        let started: Vec<_> =
            started.into_iter().filter_map(|(id, _)| self.parts.agents.get(id).map(|at| (id, at))).collect();
        if started.is_empty() {
            return match starting.len() {
                1 => "the only agent to start its workers".to_owned(),
                agents => format!("{agents} agents to start its workers"),
            };
        }
        if started.iter().all(|(_, agent)| agent.is_away()) {
            return "its agents to reconnect".to_owned();
        }
        if started.iter().any(|&(id, agent)| !agent.is_away() && self.core.chunks_at(id) < agent.slots()) {
            return "an agent to accept work: none with free slots does now".to_owned();
        }
        match started.iter().map(|(_, agent)| u64::from(agent.slots())).sum() {
            1 => "a free slot: the only one is taken".to_owned(),
            slots => format!("a free slot: all {slots} are taken"),
        }
    }

    fn pool_status(&self, id: PoolId, pool: &Pool, backlog: &BTreeMap<PoolId, Backlog>) -> PoolStatus {
        PoolStatus {
            pool: pool.spec().name.to_string(),
            name: pool.spec().request.settings.name.clone(),
            client: String::new(),
            processes: pool.spec().request.processes.map_or(0, Into::into),
            slots: self.core.workers_of(id).try_into().unwrap_or(u32::MAX),
            weight: pool.spec().request.weight,
            require: pool.spec().request.require.clone(),
            jobs: pool.open_jobs() as u64,
            waiting: self.why_it_waits(id, pool, backlog.get(&id).copied().unwrap_or_default()),
            open_ns: self.now.saturating_sub(pool.spec().opened_at),
        }
    }

    fn job_status(&self, id: JobId, job: &Job) -> JobStatus {
        let progress = self.core.progress(id).unwrap_or_default();
        JobStatus {
            job: job.spec().name.to_string(),
            pool: self.parts.pools.get(job.spec().pool).map_or_else(String::new, |pool| pool.spec().name.to_string()),
            label: job.spec().label.clone(),
            priority: job.spec().priority,
            require: job.spec().require.clone(),
            items: progress.arrived,
            input_ended: job.input_ended(),
            done: progress.outcomes,
            failed: job.failed(),
            assigned: progress.arrived - progress.outcomes - progress.queued,
            open_ns: self.now.saturating_sub(job.spec().opened_at),
            items_per_second: job.items_per_second(self.now),
        }
    }
}
