//! Pools adopt what reconnected agents still hold of them.
//!
//! An agent that was lost, or that outlived a coordinator, keeps what it had. Its hello lists the pools, and each of
//! them is answered. AdoptPool is sent as soon as a pool of that id gets a place there; the core adopts the items that
//! no other agent was given meanwhile. StopPool is sent if the pool is open and has no place at the agent, or if no
//! client has claimed it within the recovery timeout.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use farpool_core::{Claim, Event, PoolId};
use farpool_proto::v1::{AdoptPool, AdoptedChunk, AdoptedJob, agent_command};

use super::follow::follow;
use super::{sharing, start};
use crate::convert::{HeldChunk, HeldPool};
use crate::parts::Parts;
use crate::parts::places::Pending;
use crate::round::{Report, Round};
use crate::{AgentId, ClientId};

/// Has agents resume what they hold of pools that got places there.
pub(crate) fn adopt_starting(parts: &mut Parts, round: &mut Round<'_>) {
    for (id, agent) in round.take_starting() {
        let place = parts.pools.get_mut(id).and_then(|pool| pool.places.take_pending(agent));
        place.into_iter().for_each(|place| begin(parts, round, agent, id, place));
    }
}

/// The client has acknowledged its messages up to this one: its pool starts at places that were in them.
pub(crate) fn start_where_acknowledged(parts: &mut Parts, round: &mut Round<'_>, client: ClientId, last: u64) {
    let Some(id) = parts.clients.pool_of(client) else { return };
    while let Some((agent, place)) = parts.pools.get_mut(id).and_then(|pool| pool.places.take_acknowledged(last)) {
        let leaves = parts.agents.get(agent).is_none_or(|agent| agent.is_draining());
        if leaves && place.held.is_none() {
            start::send_place(parts, round, id, parts.agents.identity_of(agent), true);
        } else {
            begin(parts, round, agent, id, place);
        }
    }
}

/// Has an agent start the pool, or resume what it holds of it.
fn begin(parts: &mut Parts, round: &mut Round<'_>, agent: AgentId, id: PoolId, place: Pending) {
    let Some(pool) = parts.pools.get_mut(id) else { return };
    match place.held {
        Some(held) => adopt(parts, round, (agent, id), held, place.workers),
        None => start::begin(pool, &parts.jobs, round, agent, id, place.workers),
    }
}

/// The core adopts what is held before the agent is told which jobs and chunks it resumes. The agent gets no other
/// message about the pool before that.
fn adopt(
    parts: &mut Parts,
    round: &mut Round<'_>,
    (agent, id): (AgentId, PoolId),
    held: HeldPool,
    workers: Option<NonZeroU32>,
) {
    let Some(pool) = parts.pools.get_mut(id) else { return };
    pool.places.start(agent);
    pool.places.mark_serving_at(agent);
    pool.unsettled.add_place(agent);
    let (client, weight) = (pool.client(), pool.spec().request.weight);
    round.send_to_core(Event::PlaceStarted { pool: id, agent });
    let (mut jobs, chunks) = adopt_chunks(parts, round, agent, client, held.chunks);
    let Some(pool) = parts.pools.get(id) else { return };
    jobs.extend(sharing::adopt(pool, &held.shared));
    let processes = workers.map_or(0, NonZeroU32::get);
    let adopt = AdoptPool { held: held.number, pool: id.to_bits(), processes, weight, jobs, chunks };
    round.out.agent(agent, agent_command::Body::AdoptPool(Box::new(adopt)));
    sharing::send_missing(pool, &parts.jobs, round, agent, &held.shared);
    follow(parts, round, Report::agent_missing());
}

fn adopt_chunks(
    parts: &Parts,
    round: &mut Round<'_>,
    agent: AgentId,
    client: ClientId,
    chunks: Vec<HeldChunk>,
) -> (Vec<AdoptedJob>, Vec<AdoptedChunk>) {
    let (mut jobs, mut adopted) = (BTreeMap::new(), Vec::new());
    for HeldChunk { number, job, first, attempt, runs } in chunks {
        let Some(id) = parts.clients.get(client).and_then(|client| client.open_job(job)) else { continue };
        let claim = Claim { agent, job: id, first, attempt, runs };
        if let Some((chunk, attempt)) = round.adopt_chunk(claim) {
            jobs.insert(job, id);
            adopted.push(AdoptedChunk { held: number, chunk: chunk.to_bits(), attempt });
        }
    }
    let jobs = jobs.into_iter().map(|(number, job)| AdoptedJob { number, job: job.to_bits() });
    (jobs.collect(), adopted)
}
