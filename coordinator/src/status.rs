//! What operators see.

use std::collections::BTreeMap;

use farpool_core::{JobId, PoolId};
use farpool_proto::v1::{AgentStatus, JobStatus, PoolStatus, StatusReply};

use crate::agents::{Agent, id_as_text};
use crate::convert::Hello;
use crate::coordinator::Coordinator;
use crate::jobs::Job;
use crate::pools::Pool;
use crate::{AgentId, ClientId};

/// Items of a pool that have no outcome.
#[derive(Clone, Copy, Default)]
struct Backlog {
    queued: u64,
    assigned: u64,
}

impl Coordinator {
    /// All that is there: agents, pools and jobs, the oldest first, but no more than so many pools and jobs. What only the server
    /// knows is left for it to fill in.
    pub fn status(&self, now: u64, most: usize) -> StatusReply {
        let agents = self.agents.iter().filter_map(|(id, agent)| Some((id, agent, agent.hello.as_ref()?)));
        let mut agents: Vec<_> = agents.collect();
        agents.sort_by_key(|(_, agent, _)| agent.joined_at);
        let mut pools: Vec<_> = self.pools.iter().collect();
        pools.sort_by_key(|(_, pool)| pool.name);
        let mut jobs: Vec<_> = self.jobs.iter().collect();
        jobs.sort_by_key(|(_, job)| job.name);
        let left_out = |all: usize| all.saturating_sub(most) as u64;
        let (pools_left_out, jobs_left_out) = (left_out(pools.len()), left_out(jobs.len()));
        pools.truncate(most);
        jobs.truncate(most);
        let backlog = self.backlog();
        StatusReply {
            agents: agents.into_iter().map(|(id, agent, hello)| self.agent_status(id, agent, hello, now)).collect(),
            pools: pools.into_iter().map(|(id, pool)| self.pool_status(id, pool, &backlog, now)).collect(),
            jobs: jobs.into_iter().map(|(id, job)| self.job_status(id, job, now)).collect(),
            pools_left_out,
            jobs_left_out,
            late_messages: self.late_messages(),
            ..StatusReply::default()
        }
    }

    /// Which client each pool in [`status`](Self::status) is of.
    pub fn pool_clients(&self) -> impl Iterator<Item = (String, ClientId)> {
        self.pools.iter().map(|(_, pool)| (pool.name.to_string(), pool.client))
    }

    fn agent_status(&self, id: AgentId, agent: &Agent, hello: &Hello, now: u64) -> AgentStatus {
        let chunks = self.core.chunks_at(id);
        AgentStatus {
            agent: id_as_text(hello.id),
            host: hello.host.clone(),
            release: hello.version.as_ref().map_or_else(String::new, |version| version.release.clone()),
            labels: hello.labels.clone(),
            slots: hello.slots,
            busy: chunks.min(hello.slots),
            chunks: chunks.into(),
            draining: agent.draining,
            connected_ns: now.saturating_sub(agent.joined_at),
            items_done: agent.items_done,
            items_per_second: agent.rate.per_second(now),
            ailing: agent.ailing.clone(),
            away: agent.away,
        }
    }

    /// Items of each pool that wait for a slot, and items that are at agents.
    fn backlog(&self) -> BTreeMap<PoolId, Backlog> {
        let mut backlog = BTreeMap::<PoolId, Backlog>::new();
        for (id, job) in self.jobs.iter() {
            let progress = self.core.progress(id).unwrap_or_default();
            let of_pool = backlog.entry(job.pool).or_default();
            of_pool.queued += progress.queued;
            of_pool.assigned += progress.arrived - progress.outcomes - progress.queued;
        }
        backlog
    }

    /// Why nothing of the pool runs; empty: something does, or there is nothing to run.
    fn why_it_waits(&self, id: PoolId, pool: &Pool, backlog: Backlog) -> String {
        if !pool.told.waiting.is_empty() || backlog.queued == 0 || backlog.assigned > 0 {
            return pool.told.waiting.clone();
        }
        if pool.paused {
            return "its client to read its results".to_owned();
        }
        let (started, starting): (Vec<_>, Vec<_>) = self.core.agents_of(id).partition(|(_, started)| *started);
        let started: Vec<_> =
            started.into_iter().filter_map(|(id, _)| self.agents.get(id).map(|at| (id, at))).collect();
        if started.is_empty() {
            return match starting.len() {
                1 => "the only agent to start its workers".to_owned(),
                agents => format!("{agents} agents to start its workers"),
            };
        }
        if started.iter().all(|(_, agent)| agent.away) {
            return "its agents to reconnect".to_owned();
        }
        let slots = |agent: &Agent| agent.hello.as_ref().map_or(0, |hello| hello.slots);
        if started.iter().any(|&(id, agent)| !agent.away && self.core.chunks_at(id) < slots(agent)) {
            return "an agent to accept work: none with free slots does now".to_owned();
        }
        match started.iter().map(|(_, agent)| u64::from(slots(agent))).sum() {
            1 => "a free slot: the only one is taken".to_owned(),
            slots => format!("a free slot: all {slots} are taken"),
        }
    }

    fn pool_status(&self, id: PoolId, pool: &Pool, backlog: &BTreeMap<PoolId, Backlog>, now: u64) -> PoolStatus {
        PoolStatus {
            pool: pool.name.to_string(),
            name: pool.asked.settings.name.clone(),
            client: String::new(),
            processes: pool.asked.processes.map_or(0, Into::into),
            slots: self.core.workers_of(id).try_into().unwrap_or(u32::MAX),
            weight: pool.asked.weight,
            require: pool.asked.require.clone(),
            jobs: pool.open_jobs as u64,
            waiting: self.why_it_waits(id, pool, backlog.get(&id).copied().unwrap_or_default()),
            open_ns: now.saturating_sub(pool.opened_at),
        }
    }

    fn job_status(&self, id: JobId, job: &Job, now: u64) -> JobStatus {
        let progress = self.core.progress(id).unwrap_or_default();
        JobStatus {
            job: job.name.to_string(),
            pool: self.pools.get(job.pool).map_or_else(String::new, |pool| pool.name.to_string()),
            label: job.label.clone(),
            priority: job.priority,
            require: job.require.clone(),
            items: progress.arrived,
            input_ended: job.input_ended,
            done: progress.outcomes,
            failed: job.failed,
            assigned: progress.arrived - progress.outcomes - progress.queued,
            open_ns: now.saturating_sub(job.opened_at),
            items_per_second: job.rate.per_second(now),
        }
    }
}
