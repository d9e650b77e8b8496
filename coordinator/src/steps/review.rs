//! Tells clients where their pools run, and why they do not.

use farpool_core::{Core, PoolId};

use super::ending;
use crate::AgentId;
use crate::convert::Hello;
use crate::parts::Parts;
use crate::parts::agents::Agent;
use crate::parts::former::PoolRecovery;
use crate::parts::jobs::Job;
use crate::parts::labels::in_words;
use crate::parts::pools::Pool;
use crate::round::Round;

/// Ends the pools that are noted to end, and reviews those that are noted for it, until there are none.
pub(crate) fn end_and_review(parts: &mut Parts, round: &mut Round<'_>) {
    loop {
        if let Some(pool) = round.next_to_end() {
            ending::end_if_done(parts, round, pool);
        } else if let Some(pool) = round.next_to_review() {
            review(parts, round, pool);
        } else {
            return;
        }
    }
}

/// Agents have joined or left: all clients may need a message.
pub(crate) fn review_all(parts: &Parts, round: &mut Round<'_>) {
    parts.pools.iter().for_each(|(pool, _)| round.note_to_review(pool));
}

/// Tells the client how many workers its pool may have, or why none, if that has changed.
fn review(parts: &mut Parts, round: &mut Round<'_>, id: PoolId) {
    let Some(pool) = parts.pools.get(id).filter(|pool| pool.runs()) else { return };
    let slots = u32::try_from(round.core.workers_of(id)).unwrap_or(u32::MAX);
    if slots == 0
        && let Some(failure) = pool.places.why_never_fit()
    {
        let failure = failure.clone();
        ending::fail(parts, round, id, failure);
        return;
    }
    let waiting = if slots == 0 { why_nothing_runs(parts, pool) } else { why_a_job_waits(parts, round.core, id, pool) };
    let pool = parts.pools.get_mut(id).expect("the pool was just found");
    if let Some(news) = pool.set_status(slots, waiting) {
        round.out.client(pool.client(), news);
    }
}

fn why_nothing_runs(parts: &Parts, pool: &Pool) -> String {
    if let Some(reopening) = pool.reopening() {
        return why_not_reopened(parts, reopening);
    }
    let agents: Vec<(&Agent, &Hello)> = parts.agents.greeted().map(|(_, agent, hello)| (agent, hello)).collect();
    if agents.is_empty() {
        return "no agent is connected".to_owned();
    }
    let staying: Vec<&Hello> =
        agents.iter().filter(|(agent, _)| !agent.is_draining()).map(|(_, hello)| *hello).collect();
    if staying.is_empty() {
        return "all agents are leaving".to_owned();
    }
    let require = &pool.spec().request.require;
    let fitting = staying.iter().filter(|hello| require.iter().all(|label| hello.labels.contains(label))).count();
    if fitting == 0 {
        return none(staying.len(), "", "has", "does not have") + &in_words(require);
    }
    let with = if require.is_empty() { String::new() } else { format!(" with {}", in_words(require)) };
    match pool.places.why_unfit() {
        Some(failure) => {
            let none = none(fitting, &with, "can", "cannot");
            format!("{none}run this program: {}: {}", failure.host, failure.message)
        }
        None => none(fitting, &with, "has", "does not have") + "a free slot for it",
    }
}

/// Returns an empty string if all jobs can run.
fn why_a_job_waits(parts: &Parts, core: &Core, id: PoolId, pool: &Pool) -> String {
    let is_well = |agent: AgentId| parts.agents.get(agent).is_some_and(|agent| agent.unhealthy().is_empty());
    let places = &pool.places;
    if !places.is_nowhere() && !places.agents().any(is_well) {
        // Not the reason itself, which may change with every worker that dies.
        let are = match places.agents().len() {
            1 => "the only agent that the pool runs on is unhealthy".to_owned(),
            agents => format!("all {agents} agents that the pool runs on are unhealthy"),
        };
        return format!("{are}: `farpool agents` says why");
    }
    let serves = |agent: AgentId| is_well(agent) && !places.unhealthy().contains_key(&agent);
    if let Some((agent, reason)) = places.unhealthy().first_key_value().filter(|_| !places.agents().any(serves)) {
        let host = parts.agents.host_of(*agent);
        return match places.unhealthy().len() {
            1 => format!("its workers do not start: {host}: {reason}"),
            agents => format!("its workers do not start on {agents} agents: {host}: {reason}"),
        };
    }
    let Some(job) = core.job_without_place(id).and_then(|job| parts.jobs.get(job)).map(Job::spec) else {
        return String::new();
    };
    let name = if job.label.is_empty() { String::new() } else { format!(" {:?}", job.label) };
    let none = none(places.fit(), " that the pool runs on", "has", "does not have");
    format!("{none}{}, which the job{name} requires", in_words(&job.require))
}

/// Returns why a pool that was open before does not run yet.
fn why_not_reopened(parts: &Parts, reopening: &PoolRecovery) -> String {
    match reopening.missing(|agent| parts.agents.session_of(agent).is_some()) {
        _ if !reopening.is_complete() => "the pool is being reopened".to_owned(),
        1 => "the pool is being reopened: 1 agent that ran it has not reconnected".to_owned(),
        missing => format!("the pool is being reopened: {missing} agents that ran it have not reconnected"),
    }
}

/// Returns the beginning of a sentence: "the only agent is not " or "none of the 2 agents is ".
fn none(agents: usize, kind: &str, does: &str, does_not: &str) -> String {
    match agents {
        1 => format!("the only agent{kind} {does_not} "),
        _ => format!("none of the {agents} agents{kind} {does} "),
    }
}
