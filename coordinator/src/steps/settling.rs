//! Tells agents which of their reports they may forget.

use farpool_core::PoolId;
use farpool_proto::v1::{Settled, agent_command};

use crate::outbox::Outbox;
use crate::parts::Parts;
use crate::parts::clients::ClosedPool;
use crate::round::{ReportId, Round};
use crate::{AgentId, ClientId};

/// The client has acknowledged its messages up to this one.
pub(crate) fn settle_up_to(parts: &mut Parts, client: ClientId, last: u64) {
    let Some(id) = parts.clients.pool_of(client) else { return };
    if let Some(pool) = parts.pools.get_mut(id) {
        pool.unsettled.settle_up_to(last, id, &mut parts.settlement);
    }
}

/// The client is gone, so its messages are no longer needed.
pub(crate) fn settle_all(parts: &mut Parts, id: PoolId) {
    if let Some(pool) = parts.pools.get_mut(id) {
        pool.unsettled.settle_all(id, &mut parts.settlement);
    }
}

/// The report had no consequence, so its pool is unknown.
pub(crate) fn note_stray(parts: &mut Parts, report: ReportId) {
    if let Some(agent) = parts.agents.get_mut(report.agent) {
        parts.settlement.note_stray(report.agent, &mut agent.reports);
    }
}

/// The pool is gone, so these agents' reports of it are no longer needed.
pub(crate) fn settle_gone(parts: &Parts, round: &mut Round<'_>, ClosedPool { pool, agents }: ClosedPool) {
    for agent in agents {
        let report = parts.agents.get(agent).map_or(0, |agent| agent.reports.last());
        if report > 0 {
            round.out.agent(agent, agent_command::Body::Settled(Settled { pool: pool.to_bits(), report }));
        }
    }
}

/// Tells agents which reports were settled in this round.
pub(crate) fn settle(parts: &mut Parts, out: &mut Outbox) {
    for agent in parts.settlement.take_strays() {
        settle_strays(parts, agent);
    }
    let Parts { settlement, pools, agents, .. } = parts;
    for (agent, id) in settlement.drain_places() {
        let Some(pool) = pools.get_mut(id) else { continue };
        let reports = agents.get(agent).map_or(0, |agent| agent.reports.last());
        if let Some(report) = pool.unsettled.settle(agent, reports) {
            out.agent(agent, agent_command::Body::Settled(Settled { pool: id.to_bits(), report }));
        }
    }
}

/// Reports of the agent had no consequence: they may have belonged to any pool that runs there.
fn settle_strays(parts: &mut Parts, id: AgentId) {
    let Some(agent) = parts.agents.get_mut(id) else { return };
    agent.reports.forget_strays();
    for (pool_id, pool) in parts.pools.iter_mut() {
        pool.unsettled.may_have_caused_no_message(id, pool_id, &mut parts.settlement);
    }
}
