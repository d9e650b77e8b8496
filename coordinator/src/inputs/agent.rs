//! Sessions with agents.

use farpool_core::Event;
use farpool_proto::v1::{Drain, Failure, agent_command};

use super::place;
use crate::AgentId;
use crate::convert::{FromAgent, Hello};
use crate::ids::Identity;
use crate::parts::Parts;
use crate::parts::agents::Credit;
use crate::refused::{Refused, RefusedKind};
use crate::round::{Facts, Report, ReportId, Round};
use crate::steps::follow::{feed, follow};
use crate::steps::review::review_all;
use crate::steps::{ending, recovery, settling, start};

/// Handles a message from an agent.
pub(crate) fn receive(
    parts: &mut Parts,
    round: &mut Round<'_>,
    from: AgentId,
    event: FromAgent,
) -> Result<(), Refused> {
    let agent = parts.agents.get(from).ok_or(RefusedKind::NoSession)?;
    match (agent.has_greeted(), event) {
        (true, FromAgent::Hello(_)) => return Err(RefusedKind::Repeated("AgentHello").into()),
        (false, FromAgent::Hello(hello)) => greet(parts, round, from, hello),
        (false, _) => return Err(RefusedKind::NotFirst("AgentHello").into()),
        (true, FromAgent::PoolStopped { pool }) => place::stopped(parts, round, from, pool)?,
        (true, event) => report(parts, round, from, event),
    }
    Ok(())
}

/// An agent's session has ended: what it held runs elsewhere, if it may.
pub(crate) fn gone(parts: &mut Parts, round: &mut Round<'_>, id: AgentId) {
    let Some(Hello { host, id: identity, labels, .. }) = parts.agents.remove(id) else { return };
    round.send_to_core(Event::AgentLost { agent: id });
    parts.labels.give_back(&labels);
    follow(parts, round, Report::agent_lost(host));
    leave_pools(parts, round, id, identity);
}

/// The agent's connection is lost for now, or is back.
pub(crate) fn away(parts: &mut Parts, round: &mut Round<'_>, id: AgentId, away: bool) {
    if let Some(credit) = parts.agents.greeted_mut(id).and_then(|agent| agent.set_away(away)) {
        give_credit(parts, round, id, credit);
    }
}

/// Drains the agent, because an operator asks for it or the agent leaves by itself: it gets nothing new. It is told so
/// after everything that it was sent before. Returns false if there is no such agent.
pub(crate) fn drain(parts: &mut Parts, round: &mut Round<'_>, id: AgentId) -> bool {
    let Some(agent) = parts.agents.greeted_mut(id) else { return false };
    if agent.drain() {
        round.out.agent(id, agent_command::Body::Drain(Drain {}));
        feed(parts, round, Event::AgentDraining { agent: id });
        review_all(parts, round);
    }
    true
}

fn greet(parts: &mut Parts, round: &mut Round<'_>, id: AgentId, hello: Hello) {
    // If an agent has two sessions, the older one is left over from a broken connection.
    if let Some(older) = hello.id.and_then(|identity| parts.agents.session_of(&identity)) {
        gone(parts, round, older);
    }
    let (slots, labels) = (hello.slots, parts.labels.take(&hello.labels));
    round.count_all_late(hello.wasted);
    parts.agents.greet(id, hello, round.now);
    feed(parts, round, Event::AgentJoined { agent: id, slots, labels });
    recovery::agent_reconnected(parts, round, id);
    review_all(parts, round);
}

fn report(parts: &mut Parts, round: &mut Round<'_>, agent: AgentId, event: FromAgent) {
    match event {
        FromAgent::RunDone { chunk, attempt, results, busy_ns } => {
            let (first, count, failed) = (results.first, results.count, results.failed);
            if let Some(agent) = parts.agents.get_mut(agent) {
                agent.count_done(count, round.now);
            }
            let event = Event::RunDone { agent, chunk, attempt, first, count, busy_ns, failed };
            report_items(parts, round, agent, event, Facts::Results(results));
        }
        FromAgent::ItemFault { chunk, attempt, item, fault, mut failure } => {
            name_host(parts, agent, &mut failure);
            let event = Event::ItemFaulted { agent, chunk, attempt, item, fault };
            report_items(parts, round, agent, event, Facts::Fault(failure));
        }
        FromAgent::Returned { chunk, attempt, first, count } => {
            feed(parts, round, Event::Returned { agent, chunk, attempt, first, count });
        }
        FromAgent::Credit { chunks, bytes } => {
            let credit = Credit { chunks: chunks.min(round.config.max_agent_chunks), bytes };
            if parts.agents.get_mut(agent).is_some_and(|agent| agent.set_credit(credit)) {
                give_credit(parts, round, agent, credit);
            }
        }
        FromAgent::PoolFault { pool, mut failure } => {
            name_host(parts, agent, &mut failure);
            place::unfit(parts, round, agent, pool, failure);
        }
        FromAgent::PoolStarted { pool } => place::started(parts, round, agent, pool),
        FromAgent::Output { pool, pid, stream, data } => {
            place::output(parts, round, agent, pool, (pid, stream, data));
        }
        FromAgent::Draining => {
            drain(parts, round, agent);
        }
        FromAgent::WastedOutcomes { items } => round.count_all_late(items),
        FromAgent::HealthReport { reason, pool: Some(pool) } => place::unhealthy(parts, round, agent, pool, reason),
        FromAgent::HealthReport { reason, pool: None } => unhealthy(parts, round, agent, reason),
        FromAgent::Hello(_) | FromAgent::PoolStopped { .. } => unreachable!("handled above"),
    }
}

/// Handles a report of items.
fn report_items(parts: &mut Parts, round: &mut Round<'_>, from: AgentId, event: Event, facts: Facts) {
    let Some(agent) = parts.agents.get_mut(from) else { return };
    let number = agent.reports.count();
    let id = agent.identity().map(|_| ReportId { agent: from, number });
    round.send_to_core(event);
    if let Some(unused) = follow(parts, round, Report::of_items(facts, id)) {
        settling::note_stray(parts, unused);
    }
}

fn give_credit(parts: &mut Parts, round: &mut Round<'_>, agent: AgentId, Credit { chunks, bytes }: Credit) {
    feed(parts, round, Event::AgentCredit { agent, chunks, bytes });
}

/// Workers at the agent die before they can serve. An empty reason means that this has ended.
fn unhealthy(parts: &mut Parts, round: &mut Round<'_>, id: AgentId, reason: String) {
    let Some(agent) = parts.agents.get_mut(id) else { return };
    let unhealthy = !reason.is_empty();
    let is_news = agent.set_unhealthy(reason);
    feed(parts, round, Event::AgentHealthChanged { agent: id, unhealthy });
    if is_news {
        review_all(parts, round);
    }
}

/// An agent is gone, and its workers with it.
fn leave_pools(parts: &mut Parts, round: &mut Round<'_>, agent: AgentId, identity: Option<Identity>) {
    let mut all = Vec::new();
    for (id, pool) in parts.pools.iter_mut() {
        pool.unsettled.forget_place(agent);
        all.push((id, pool.places.forget(agent)));
    }
    for (pool, was_place) in all {
        if was_place {
            start::send_place(parts, round, pool, identity, true);
        }
        ending::finish(parts, round, pool);
    }
    review_all(parts, round);
}

/// Adds the host to a failure.
fn name_host(parts: &Parts, agent: AgentId, failure: &mut Failure) {
    if failure.host.is_empty() {
        failure.host = parts.agents.host_of(agent).to_owned();
    }
}
