//! Starts and stops pools: sends agents and clients what follows when the core adds and removes places.
//!
//! This sends nothing to the core.

use std::num::NonZeroU32;

use bytes::Bytes;
use farpool_core::PoolId;
use farpool_proto::v1::{PoolAt, ResizePool, StopPool, agent_command, client_event};

use super::sharing;
use crate::AgentId;
use crate::ids::Identity;
use crate::parts::Parts;
use crate::parts::jobs::Jobs;
use crate::parts::places::Pending;
use crate::parts::pools::Pool;
use crate::round::Round;

/// The pool has a place at the agent.
pub(crate) fn start_pool(
    parts: &mut Parts,
    round: &mut Round<'_>,
    agent: AgentId,
    id: PoolId,
    workers: Option<NonZeroU32>,
) {
    // Earlier actions of the same list may have ended the pool.
    let Some(pool) = parts.pools.get_mut(id).filter(|pool| pool.runs() && !pool.is_done()) else { return };
    let (key, identity) = (pool.key(), parts.agents.identity_of(agent));
    let has_client = parts.clients.contains(pool.client());
    let held = key.and_then(|key| parts.agents.get_mut(agent)?.held.take(&key));
    match held {
        _ if has_client && identity.is_some() && pool.client_must_acknowledge(agent) => {
            pool.places.add_pending(agent, Pending::until_acknowledged(workers, held));
        }
        Some(held) => {
            pool.places.add_pending(agent, Pending::to_adopt(workers, held));
            round.note_starting((id, agent));
        }
        None => begin(pool, &parts.jobs, round, agent, id, workers),
    }
    send_place(parts, round, id, identity, false);
    round.note_to_review(id);
}

/// Has an agent start the pool, of which it holds nothing.
pub(crate) fn begin(
    pool: &mut Pool,
    jobs: &Jobs,
    round: &mut Round<'_>,
    agent: AgentId,
    id: PoolId,
    workers: Option<NonZeroU32>,
) {
    pool.places.start(agent);
    pool.unsettled.add_place(agent);
    let start = pool.start_message(id, workers.map_or(0, NonZeroU32::get));
    round.out.agent(agent, agent_command::Body::StartPool(Box::new(start)));
    sharing::send_all(pool, jobs, round, agent);
}

pub(crate) fn resize_pool(parts: &mut Parts, round: &mut Round<'_>, agent: AgentId, id: PoolId, workers: NonZeroU32) {
    round.note_to_review(id);
    if parts.pools.get_mut(id).is_some_and(|pool| pool.places.resize_pending(agent, workers)) {
        return;
    }
    let resize = ResizePool { pool: id.to_bits(), processes: workers.get() };
    round.out.agent(agent, agent_command::Body::ResizePool(resize));
}

/// The pool's workers at the agent are needed elsewhere.
pub(crate) fn give_up_place(parts: &mut Parts, round: &mut Round<'_>, agent: AgentId, id: PoolId) {
    let Some(pool) = parts.pools.get_mut(id) else { return };
    if let Some(place) = pool.places.take_pending(agent) {
        stop_held(round, agent, place);
        send_place(parts, round, id, parts.agents.identity_of(agent), true);
        round.note_withdrawn((id, agent));
        return;
    }
    pool.places.give_up(agent);
    round.out.agent(agent, agent_command::Body::StopPool(StopPool { pool: id.to_bits(), now: false }));
}

/// The place will not start: what the agent holds of the pool is not needed.
pub(crate) fn stop_held(round: &mut Round<'_>, agent: AgentId, place: Pending) {
    if let Some(held) = place.held {
        round.out.agent(agent, agent_command::Body::StopPool(StopPool { pool: held.number, now: true }));
    }
}

/// Tells the client that its pool runs at the agent from now on, or no longer does. If the client opens the pool
/// again, it lists these agents.
pub(crate) fn send_place(parts: &Parts, round: &mut Round<'_>, id: PoolId, agent: Option<Identity>, gone: bool) {
    let known = |pool: &&Pool| pool.runs() && pool.spec().request.id.is_some() && parts.clients.contains(pool.client());
    if let (Some(pool), Some(agent)) = (parts.pools.get(id).filter(known), agent) {
        let at = PoolAt { agent: Bytes::copy_from_slice(&agent), gone };
        round.out.client(pool.client(), client_event::Body::PoolAt(at));
    }
}
