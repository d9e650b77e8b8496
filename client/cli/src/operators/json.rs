//! A coordinator's status as JSON. The keys are stable; new ones may be added.

use std::collections::BTreeMap;

use farpool_proto::v1::{self, AgentStatus, JobStatus, Label, PoolStatus, StatusReply};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Status<'s> {
    release: &'s str,
    protocol: u32,
    uptime_seconds: f64,
    draining: bool,
    held_bytes: u64,
    memory_bytes: u64,
    late_messages: u64,
    /// `null`: the coordinator has no journal.
    journal: Option<Journal<'s>>,
    agents: Vec<Agent<'s>>,
    pools: Vec<Pool<'s>>,
    jobs: Vec<Job<'s>>,
    /// How many pools and jobs are not shown.
    pools_left_out: u64,
    jobs_left_out: u64,
}

#[derive(Serialize)]
struct Journal<'s> {
    jobs: u64,
    bytes: u64,
    size_bytes: u64,
    /// Why it cannot be written; empty: it can.
    failing: &'s str,
    /// Damaged files that were set aside.
    aside: Vec<FileAside<'s>>,
    /// What was damaged or missing when the coordinator opened the journal, and what that means for jobs.
    damage: &'s [String],
}

#[derive(Serialize)]
struct FileAside<'s> {
    name: &'s str,
    bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Agents<'s> {
    agents: Vec<Agent<'s>>,
}

#[derive(Serialize)]
pub(super) struct Jobs<'s> {
    jobs: Vec<Job<'s>>,
}

#[derive(Serialize)]
pub(super) struct Detached<'s> {
    results: Vec<DetachedJob<'s>>,
}

#[derive(Serialize)]
struct DetachedJob<'s> {
    name: &'s str,
    label: &'s str,
    state: &'static str,
    items: u64,
    done: u64,
    failed: u64,
    /// The type of the results, as their program names it.
    result: &'s str,
    /// Seconds since 1970; `null`: not yet.
    detached_at: Option<f64>,
    ended_at: Option<f64>,
    expires_at: Option<f64>,
}

#[derive(Serialize)]
struct Agent<'s> {
    agent: &'s str,
    host: &'s str,
    release: &'s str,
    labels: Labels<'s>,
    slots: u32,
    busy: u32,
    chunks: u64,
    draining: bool,
    connected_seconds: f64,
    items_done: u64,
    items_per_second: f64,
    /// Why its workers die; empty if they do not.
    unhealthy: &'s str,
    away: bool,
}

#[derive(Serialize)]
struct Pool<'s> {
    pool: &'s str,
    name: &'s str,
    client: &'s str,
    /// 0: all slots.
    processes: u32,
    slots: u32,
    weight: u32,
    require: Labels<'s>,
    jobs: u64,
    /// Why nothing can run; empty if something can.
    waiting: &'s str,
    open_seconds: f64,
}

#[derive(Serialize)]
struct Job<'s> {
    job: &'s str,
    pool: &'s str,
    label: &'s str,
    priority: i32,
    require: Labels<'s>,
    items: u64,
    input_ended: bool,
    done: u64,
    failed: u64,
    assigned: u64,
    open_seconds: f64,
    items_per_second: f64,
}

type Labels<'s> = BTreeMap<&'s str, &'s str>;

pub(super) fn status(status: &StatusReply) -> Status<'_> {
    let version = status.version.as_ref();
    Status {
        release: version.map_or("", |version| &version.release),
        protocol: version.map_or(0, |version| version.protocol),
        uptime_seconds: seconds(status.uptime_ns),
        draining: status.draining,
        held_bytes: status.held_bytes,
        memory_bytes: status.memory,
        late_messages: status.late_messages,
        journal: status.journal.as_ref().map(journal),
        agents: agents(status).agents,
        pools: status.pools.iter().map(pool).collect(),
        jobs: jobs(status).jobs,
        pools_left_out: status.pools_left_out,
        jobs_left_out: status.jobs_left_out,
    }
}

fn journal(journal: &v1::JournalStatus) -> Journal<'_> {
    let v1::JournalStatus { jobs, bytes, size, ref failing, ref aside, ref damage } = *journal;
    let aside = aside.iter().map(|file| FileAside { name: &file.name, bytes: file.bytes }).collect();
    Journal { jobs, bytes, size_bytes: size, failing, aside, damage }
}

pub(super) fn agents(status: &StatusReply) -> Agents<'_> {
    Agents { agents: status.agents.iter().map(agent).collect() }
}

pub(super) fn jobs(status: &StatusReply) -> Jobs<'_> {
    Jobs { jobs: status.jobs.iter().map(job).collect() }
}

pub(super) fn detached(jobs: &[v1::DetachedJob]) -> Detached<'_> {
    Detached { results: jobs.iter().map(detached_job).collect() }
}

fn detached_job(job: &v1::DetachedJob) -> DetachedJob<'_> {
    let at = |ms: u64| (ms > 0).then_some(ms as f64 / 1e3);
    DetachedJob {
        name: &job.name,
        label: &job.label,
        state: state(job),
        items: job.items,
        done: job.done,
        failed: job.failed,
        result: &job.result,
        detached_at: at(job.detached_ms),
        ended_at: at(job.ended_ms),
        expires_at: at(job.expires_ms),
    }
}

/// Returns the state of a detached job as a word.
pub(super) fn state(job: &v1::DetachedJob) -> &'static str {
    match job.state() {
        v1::DetachedState::Receiving => "receiving",
        v1::DetachedState::Running => "running",
        v1::DetachedState::Finished => "finished",
        v1::DetachedState::Cancelled => "cancelled",
        v1::DetachedState::Failed => "failed",
        // A state of a later version.
        v1::DetachedState::Unspecified => "unknown",
    }
}

fn agent(agent: &AgentStatus) -> Agent<'_> {
    Agent {
        agent: &agent.agent,
        host: &agent.host,
        release: &agent.release,
        labels: labels(&agent.labels),
        slots: agent.slots,
        busy: agent.busy,
        chunks: agent.chunks,
        draining: agent.draining,
        connected_seconds: seconds(agent.connected_ns),
        items_done: agent.items_done,
        items_per_second: agent.items_per_second,
        unhealthy: &agent.unhealthy,
        away: agent.away,
    }
}

fn pool(pool: &PoolStatus) -> Pool<'_> {
    Pool {
        pool: &pool.pool,
        name: &pool.name,
        client: &pool.client,
        processes: pool.processes,
        slots: pool.slots,
        weight: pool.weight.max(1),
        require: labels(&pool.require),
        jobs: pool.jobs,
        waiting: &pool.waiting,
        open_seconds: seconds(pool.open_ns),
    }
}

fn job(job: &JobStatus) -> Job<'_> {
    Job {
        job: &job.job,
        pool: &job.pool,
        label: &job.label,
        priority: job.priority,
        require: labels(&job.require),
        items: job.items,
        input_ended: job.input_ended,
        done: job.done,
        failed: job.failed,
        assigned: job.assigned,
        open_seconds: seconds(job.open_ns),
        items_per_second: job.items_per_second,
    }
}

fn labels(labels: &[Label]) -> Labels<'_> {
    labels.iter().map(|label| (&*label.key, &*label.value)).collect()
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
