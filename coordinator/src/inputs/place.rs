//! Messages from agents about the pools that they run.

use bytes::Bytes;
use farpool_core::{Event, PoolId};
use farpool_proto::v1::{Failure, FailureKind, Output, client_event};

use crate::AgentId;
use crate::convert::is_held;
use crate::parts::Parts;
use crate::refused::{Refused, RefusedKind};
use crate::round::Round;
use crate::steps::follow::feed;
use crate::steps::{ending, start};

pub(crate) fn started(parts: &mut Parts, round: &mut Round<'_>, from: AgentId, id: PoolId) {
    let pool = parts.pools.get_mut(id).filter(|pool| pool.runs() && pool.places.is_at(from));
    let Some(pool) = pool else {
        round.count_late();
        return;
    };
    let was_unhealthy = pool.places.mark_serving_at(from);
    feed(parts, round, Event::PlaceStarted { pool: id, agent: from });
    if was_unhealthy {
        round.note_to_review(id);
    }
}

/// The pool's workers die at the agent while other pools can serve. The agent gets no more of the pool's items until it
/// reports that the pool has started.
pub(crate) fn unhealthy(parts: &mut Parts, round: &mut Round<'_>, from: AgentId, id: PoolId, reason: String) {
    let Some(pool) = parts.pools.working_at(id, from) else {
        round.count_late();
        return;
    };
    if pool.places.set_unhealthy_at(from, reason) {
        feed(parts, round, Event::PlaceUnhealthy { pool: id, agent: from });
        round.note_to_review(id);
    }
}

/// The pool cannot run at the agent.
pub(crate) fn unfit(parts: &mut Parts, round: &mut Round<'_>, from: AgentId, id: PoolId, failure: Failure) {
    let Some(pool) = parts.pools.working_at(id, from) else {
        round.count_late();
        return;
    };
    if !matches!(failure.kind(), FailureKind::ProgramRejected | FailureKind::Unavailable) {
        ending::fail(parts, round, id, failure);
        return;
    }
    // Another agent may be able to run it.
    pool.places.set_unfit(from, failure.clone());
    feed(parts, round, Event::PlaceUnfit { pool: id, agent: from });
    if round.core.workers_of(id) == 0 {
        ending::fail(parts, round, id, failure);
    } else {
        round.note_to_review(id);
    }
}

/// The pool's last worker at the agent has exited.
pub(crate) fn stopped(parts: &mut Parts, round: &mut Round<'_>, from: AgentId, id: PoolId) -> Result<(), Refused> {
    if is_held(id) {
        // The agent was told to stop a pool that was no longer needed.
        return Ok(());
    }
    let leaves = parts.agents.get(from).is_some_and(|agent| agent.is_draining());
    let Some(pool) = parts.pools.get_mut(id).filter(|pool| pool.places.is_at(from)) else {
        round.count_late();
        return Ok(());
    };
    let runs = pool.runs();
    let stopped = pool.places.stopped_at(from, leaves || !runs).ok_or(RefusedKind::PoolRuns(id.to_bits()))?;
    start::send_place(parts, round, id, parts.agents.identity_of(from), true);
    if stopped.given_up && runs {
        feed(parts, round, Event::PlaceStopped { pool: id, agent: from });
        round.note_to_review(id);
    }
    ending::finish(parts, round, id);
    Ok(())
}

/// Passes a worker's output to the client, if it is still connected.
pub(crate) fn output(
    parts: &mut Parts,
    round: &mut Round<'_>,
    from: AgentId,
    id: PoolId,
    (pid, stream, data): (u32, i32, Bytes),
) {
    let pool = parts.pools.get(id).filter(|pool| pool.places.is_at(from));
    match pool.filter(|pool| parts.clients.contains(pool.client())) {
        Some(pool) => {
            let host = parts.agents.host_of(from).to_owned();
            round.out.client(pool.client(), client_event::Body::Output(Output { host, pid, stream, data }));
        }
        None => round.count_late(),
    }
}
