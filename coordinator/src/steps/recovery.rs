//! Recovery of pools that were open before, in a session that this coordinator does not know or has given up.
//!
//! Their clients resend what they still need. It is withheld from the core until all of it has arrived and all agents
//! that ran the pool have reconnected. After the recovery timeout, pools no longer wait for missing agents. Then the
//! core gets everything at once: the pool with the places where it is held, its jobs and items, and which of them are
//! at agents. So no item that an agent still has is handed out a second time.

use farpool_core::{Event, JobId, PoolId};

use super::adoption::adopt_starting;
use super::follow::{feed, follow};
use super::review::end_and_review;
use super::{ending, start};
use crate::AgentId;
use crate::ids::{Identity, PoolKey};
use crate::parts::Parts;
use crate::parts::agents::Agents;
use crate::parts::former::{Awaiting, Former, NewJob};
use crate::parts::pools::Pool;
use crate::round::{Report, Round};

/// An agent has said hello, and its pools have their places.
pub(crate) fn agent_reconnected(parts: &mut Parts, round: &mut Round<'_>, id: AgentId) {
    adopt_starting(parts, round);
    ending::give_up_held(parts, round, id, false);
    if parts.agents.get(id).is_some_and(|agent| !agent.held.is_empty()) {
        parts.deadlines.wait(Awaiting::Clients(id), round.now, round.config.recovery);
    }
    // Some pools may have waited for it.
    parts.pools.reopening().into_iter().for_each(|id| reopen(parts, round, id));
}

/// The client has resent everything that it still needs. Returns false if its pool was not open before, or if this was
/// reported already.
pub(crate) fn complete(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) -> bool {
    let Parts { pools, jobs, .. } = parts;
    let next = |job| jobs.get(job).map_or(0, |job| job.payloads().next());
    let reopening = pools.get_mut(id).and_then(Pool::reopening_mut);
    if !reopening.is_some_and(|reopening| reopening.complete(next)) {
        return false;
    }
    reopen(parts, round, id);
    round.note_to_review(id);
    true
}

/// Handles deadlines that have passed.
pub(crate) fn handle_deadlines(parts: &mut Parts, round: &mut Round<'_>) {
    while let Some(awaiting) = parts.deadlines.take_due(round.now) {
        match awaiting {
            Awaiting::Agents(pool) => {
                if let Some(reopening) = parts.pools.get_mut(pool).and_then(Pool::reopening_mut) {
                    reopening.stop_waiting();
                    reopen(parts, round, pool);
                }
            }
            Awaiting::Clients(agent) => ending::give_up_held(parts, round, agent, true),
        }
    }
}

/// Reopens a pool if it need not wait any longer.
fn reopen(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) {
    let Parts { pools, agents, .. } = parts;
    let Some(pool) = pools.get_mut(id) else { return };
    let key = pool.key();
    let reopening = pool.reopening_mut();
    let former = reopening.and_then(|reopening| {
        let former = reopening.take(|agent| agents.session_of(agent).is_some())?;
        let held = key.map_or_else(Vec::new, |key| held_at(agents, &key, &former.agents));
        reopening.set_held_at(held.iter().map(|(agent, _)| *agent).collect());
        Some((former, held))
    });
    let Some((Former { require, agents: ran_at, jobs }, held)) = former else { return };
    let (slots, weight) = (pool.spec().request.processes, pool.spec().request.weight);
    let paused = pool.is_paused();
    feed(parts, round, Event::PoolOpened { pool: id, slots, weight, require, held });
    if paused {
        feed(parts, round, Event::PoolPaused { pool: id, paused });
    }
    // The client learns where the pool runs before it gets outcomes of its items.
    end_and_review(parts, round);
    jobs.iter().for_each(|job| begin_job(parts, round, job));
    adopt_starting(parts, round);
    // If an agent has reconnected without the pool, or no longer has a place for it, what ran there has ended. The
    // consequences are the same as if the agent were missing.
    let resumed =
        |pool: &Pool, agent: &Identity| parts.agents.session_of(agent).is_some_and(|agent| pool.places.is_at(agent));
    let all_resumed = parts.pools.get(id).is_some_and(|pool| ran_at.iter().all(|agent| resumed(pool, agent)));
    for NewJob { job, policy, .. } in &jobs {
        if !all_resumed && policy.retries == 0 && parts.jobs.get(*job).is_some() {
            round.send_to_core(Event::FailQueued { job: *job });
            follow(parts, round, Report::agent_missing());
        }
    }
    jobs.iter().for_each(|job| catch_up(parts, round, job));
    // Items that must not run twice have their outcomes now, so the client may forget the missing agents.
    for agent in ran_at {
        let session = parts.agents.session_of(&agent);
        let is_place = |pool: &Pool| session.is_some_and(|agent| pool.places.includes(agent));
        if !parts.pools.get(id).is_some_and(is_place) {
            start::send_place(parts, round, id, Some(agent), true);
        }
    }
    if let Some(pool) = parts.pools.get_mut(id) {
        pool.end_reopening();
    }
    ending::give_up_everywhere(parts, round);
    round.note_to_end(id);
    round.note_to_review(id);
}

/// Returns the agents that ran the pool and hold it, and with how many workers.
fn held_at(agents: &Agents, pool: &PoolKey, ran_at: &[Identity]) -> Vec<(AgentId, u32)> {
    let known: Vec<AgentId> = ran_at.iter().filter_map(|agent| agents.session_of(agent)).collect();
    let mut held = agents.holders(pool);
    held.retain(|(agent, _)| known.contains(agent));
    held
}

/// Sends the core a job and those of its items that may be at agents; nothing if it was cancelled meanwhile.
fn begin_job(parts: &mut Parts, round: &mut Round<'_>, new: &NewJob) {
    let NewJob { job: id, policy, resent_to, .. } = *new;
    let Some(job) = parts.jobs.get(id) else { return };
    round.send_to_core(Event::JobOpened { job: id, pool: job.spec().pool, policy, require: new.require.clone() });
    arrive(parts, round, id, |first| first < resent_to);
    feed(parts, round, Event::ResendComplete { job: id });
}

/// Sends the core what else has arrived of a job while its pool waited for agents.
fn catch_up(parts: &mut Parts, round: &mut Round<'_>, new: &NewJob) {
    let NewJob { job: id, resent_to, .. } = *new;
    arrive(parts, round, id, |first| first >= resent_to);
    follow(parts, round, Report::none());
    if parts.jobs.get(id).is_some_and(|job| job.input_ended()) {
        feed(parts, round, Event::InputEnded { job: id });
    }
}

/// Sends the core those items of a job whose message begins with one of these.
fn arrive(parts: &Parts, round: &mut Round<'_>, id: JobId, these: impl Fn(u64) -> bool) {
    let Some(job) = parts.jobs.get(id) else { return };
    for batch in job.payloads().batches().filter(|batch| these(batch.first)) {
        let (first, count, bytes) = (batch.first, batch.count, batch.bytes());
        round.send_to_core(Event::ItemsArrived { job: id, first, count, bytes });
    }
}
