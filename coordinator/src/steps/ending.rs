//! Ends pools: with their jobs, at once, because their client asked, or because they cannot run.

use farpool_core::{Event, JobId, PoolId};
use farpool_proto::v1::{Failure, PoolClosed, PoolFailed, StopPool, agent_command, client_event};

use super::follow::{feed, finish_job};
use super::{settling, sharing, start};
use crate::AgentId;
use crate::parts::Parts;
use crate::parts::clients::ClosedPool;
use crate::parts::pools::{Closing, Pool};
use crate::round::Round;

/// Closes a pool for its client, with its jobs or, if `now`, at once.
pub(crate) fn close(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, now: bool) {
    let Some(pool) = parts.pools.get_mut(id) else { return };
    match pool.close(now) {
        Closing::Waits => {}
        Closing::Abandon => {
            pool.stop();
            abandon(parts, round, id);
        }
        Closing::Stop => stop(parts, round, id, now),
        Closing::StopNow => send_stop(parts, round, id, true),
    }
    finish(parts, round, id);
}

/// Ends a pool that was closed gently, if its jobs have ended.
pub(crate) fn end_if_done(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) {
    if parts.pools.get(id).is_some_and(Pool::is_done) {
        stop(parts, round, id, false);
        finish(parts, round, id);
    }
}

/// The pool can no longer run anything.
pub(crate) fn fail(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, failure: Failure) {
    let Some(pool) = parts.pools.get_mut(id).filter(|pool| pool.runs()) else { return };
    let failed = PoolFailed { failure: Some(failure) };
    round.out.client(pool.client(), client_event::Body::PoolFailed(Box::new(failed)));
    pool.fail();
    drop_jobs(parts, round, id, true);
    finish(parts, round, id);
}

/// Ends the session once the workers are gone and the client has closed the pool.
pub(crate) fn finish(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) {
    if !parts.pools.get(id).is_some_and(Pool::is_over) {
        return;
    }
    let pool = parts.pools.remove(id).expect("the pool was just found");
    let client = pool.client();
    parts.labels.give_back(&pool.spec().request.require);
    let closed = ClosedPool { pool: id, agents: pool.unsettled.into_places() };
    match parts.clients.get_mut(client) {
        Some(session) => {
            session.close_session(closed);
            round.out.client(client, client_event::Body::PoolClosed(PoolClosed {}));
        }
        None => settling::settle_gone(parts, round, closed),
    }
}

/// Tells an agent to stop what it holds of open pools that have no place for it. If `unclaimed`, also of pools that are
/// not open: no client is expected to claim them.
pub(crate) fn give_up_held(parts: &mut Parts, round: &mut Round<'_>, id: AgentId, unclaimed: bool) {
    let Some(agent) = parts.agents.get_mut(id) else { return };
    let stays = |key: &_| parts.pools.with_key(key).map_or(!unclaimed, Pool::is_reopening);
    for held in agent.held.take_all_except(stays) {
        round.out.agent(id, agent_command::Body::StopPool(StopPool { pool: held.number, now: true }));
    }
}

/// A pool has resumed or is gone: agents stop what they hold of it, except what it adopted.
pub(crate) fn give_up_everywhere(parts: &mut Parts, round: &mut Round<'_>) {
    parts.agents.holding().into_iter().for_each(|id| give_up_held(parts, round, id, false));
}

/// Drops a pool that the core does not know, when its client is gone or no longer needs it.
fn abandon(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) {
    let jobs: Vec<JobId> = parts.jobs.iter().filter(|(_, job)| job.spec().pool == id).map(|(job, _)| job).collect();
    jobs.into_iter().for_each(|job| finish_job(parts, round, job, true));
    sharing::end_all(parts, round, id);
    if let Some(pool) = parts.pools.get_mut(id) {
        pool.end_reopening();
    }
    give_up_everywhere(parts, round);
}

fn stop(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, now: bool) {
    parts.pools.get_mut(id).expect("the stopped pool exists").stop();
    drop_jobs(parts, round, id, now);
}

/// Drops the jobs of a pool that has stopped or failed, and stops its workers.
fn drop_jobs(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, now: bool) {
    feed(parts, round, Event::PoolClosed { pool: id });
    sharing::end_all(parts, round, id);
    send_stop(parts, round, id, now);
}

fn send_stop(parts: &mut Parts, round: &mut Round<'_>, id: PoolId, now: bool) {
    let Some(pool) = parts.pools.get_mut(id) else { return };
    for (agent, place) in pool.places.take_all_pending() {
        start::stop_held(round, agent, place);
    }
    for agent in pool.places.agents() {
        round.out.agent(agent, agent_command::Body::StopPool(StopPool { pool: id.to_bits(), now }));
    }
}
