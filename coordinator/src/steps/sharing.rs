//! Shared values: sends them to the agents that run their pool, and frees them.

use farpool_core::{JobId, PoolId};
use farpool_proto::v1::{AdoptedJob, EndJob, JobEnded, agent_command, client_event};

use crate::AgentId;
use crate::parts::Parts;
use crate::parts::clients::Client;
use crate::parts::jobs::{Job, Jobs};
use crate::parts::pools::Pool;
use crate::round::Round;

/// A client has shared a value: every agent that runs its pool gets it.
pub(crate) fn share(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, number: u64, job: JobId) {
    let Parts { pools, jobs, clients, .. } = parts;
    let Some(pool) = pools.get_mut(id) else { return };
    let client = pool.client();
    pool.shared.add(number, job, || {
        let open = clients.get(client).into_iter().flat_map(Client::open_jobs).filter_map(|job| jobs.get(job));
        open.map(Job::spec).filter(|spec| !spec.shared).map(|spec| spec.name).collect()
    });
    for agent in pool.places.working() {
        send(jobs, round, agent, job);
    }
}

/// Sends an agent that has just started the pool its shared values.
pub(crate) fn send_all(pool: &Pool, jobs: &Jobs, round: &mut Round<'_>, agent: AgentId) {
    for (_, job) in pool.shared.iter() {
        send(jobs, round, agent, job);
    }
}

/// Returns those of the held values that are still needed. `held`: the client's numbers.
pub(crate) fn adopt(pool: &Pool, held: &[u64]) -> Vec<AdoptedJob> {
    let needed = pool.shared.iter().filter(|(number, _)| held.contains(number));
    needed.map(|(number, job)| AdoptedJob { number, job: job.to_bits() }).collect()
}

/// Sends an agent that resumes the pool the values that it does not have.
pub(crate) fn send_missing(pool: &Pool, jobs: &Jobs, round: &mut Round<'_>, agent: AgentId, held: &[u64]) {
    for (_, job) in pool.shared.iter().filter(|(number, _)| !held.contains(number)) {
        send(jobs, round, agent, job);
    }
}

/// The client has dropped a value. It is freed when all jobs have ended that are open now.
pub(crate) fn drop_value(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, number: u64) {
    let freed = parts.pools.get_mut(id).map_or_else(Vec::new, |pool| pool.shared.drop_value(number));
    freed.into_iter().for_each(|job| free(parts, round, id, job));
}

/// The job with this name has ended, and may have been the last one to use some values.
pub(crate) fn job_ended(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, name: u64) {
    let Some(pool) = parts.pools.get_mut(id).filter(|pool| !pool.shared.is_empty()) else { return };
    let freed = pool.shared.job_ended(name);
    freed.into_iter().for_each(|job| free(parts, round, id, job));
}

/// The pool ends, and its shared values with it.
pub(crate) fn end_all(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) {
    let Some(pool) = parts.pools.get_mut(id) else { return };
    pool.shared.take_all().into_iter().for_each(|job| forget(parts, round, id, job));
}

fn send(jobs: &Jobs, round: &mut Round<'_>, agent: AgentId, id: JobId) {
    if let Some(job) = jobs.get(id) {
        round.out.agent(agent, agent_command::Body::StartJob(job.start_message(id)));
    }
}

fn free(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, job: JobId) {
    for agent in parts.pools.get(id).into_iter().flat_map(|pool| pool.places.agents()) {
        round.out.agent(agent, agent_command::Body::EndJob(EndJob { job: job.to_bits(), kill: false }));
    }
    forget(parts, round, id, job);
}

fn forget(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, job: JobId) {
    let (Some(pool), Some(job)) = (parts.pools.get(id), parts.jobs.remove(job)) else { return };
    let number = job.spec().number;
    parts.labels.give_back(&job.spec().require);
    if parts.clients.end_job(pool.client(), number, job.own_cost()) && !pool.has_failed() {
        round.out.client(pool.client(), client_event::Body::JobEnded(JobEnded { job: number, cancelled: true }));
    }
}
