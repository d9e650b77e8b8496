//! Which reports agents may forget: those whose outcomes clients have, and those that led to nothing.
//!
//! An agent counts its reports of items, from the session's start, and keeps each until it is told that it is settled: so that
//! it can say it again to a coordinator that does not know it. A pool remembers in order which report led to a message to
//! its client that the client may not have. Reports that led to no message need no entry: a pool's reports up to some number are
//! settled when none of its entries has that number or a lower one.

use std::collections::{BTreeMap, VecDeque};

use farpool_core::{JobId, PoolId};
use farpool_proto::v1::{Settled, agent_command};

use crate::coordinator::Coordinator;
use crate::outbox::Outbox;
use crate::{AgentId, ClientId};

/// A pool's reports whose outcomes its client may not have, oldest first.
#[derive(Default)]
pub(crate) struct Unsettled {
    entries: VecDeque<Entry>,
    /// The agents that may keep reports of the pool: also where it has stopped.
    places: BTreeMap<AgentId, PlaceReports>,
}

/// Reports of one agent, one behind the other, up to this one.
struct Entry {
    agent: AgentId,
    report: u64,
    /// The client's message behind which it is settled.
    message: u64,
}

/// The message is in the outbox and has no number yet.
pub(crate) const UNNUMBERED: u64 = u64::MAX;

/// The reports that came from one of a pool's places.
#[derive(Default)]
struct PlaceReports {
    /// Entries of the place.
    entries: usize,
    /// The report up to which all are settled, and the one up to which the agent was told so.
    settled: u64,
    told: u64,
    /// It will be looked at at the end of this round.
    to_settle: bool,
}

impl Unsettled {
    /// The pool starts at an agent, for the first time or again.
    pub(crate) fn add_place(&mut self, agent: AgentId) {
        self.places.entry(agent).or_default();
    }

    /// The agent is gone, and with it what it kept.
    pub(crate) fn forget_place(&mut self, agent: AgentId) {
        self.places.remove(&agent);
    }

    /// The agents that may keep reports.
    pub(crate) fn into_places(self) -> Vec<AgentId> {
        self.places.into_keys().collect()
    }
}

impl Coordinator {
    /// Messages for the client were taken out of the outbox; the last of all that were has this number, counted from 1.
    pub fn client_numbered(&mut self, client: ClientId, last: u64) {
        let Some(pool) = self.clients.get(client).and_then(|client| client.pool) else { return };
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let fresh = pool.unsettled.entries.iter_mut().rev().take_while(|entry| entry.message == UNNUMBERED);
        fresh.for_each(|entry| entry.message = last);
        pool.number_unheard(last);
    }

    /// The client has taken in its messages up to this one.
    pub fn client_acknowledged(&mut self, client: ClientId, last: u64, now: u64, out: &mut Outbox) {
        self.now = now;
        self.settle_up_to(client, last);
        self.start_where_heard(client, last, out);
    }

    fn settle_up_to(&mut self, client: ClientId, last: u64) {
        let Some(id) = self.clients.get(client).and_then(|client| client.pool) else { return };
        let Some(pool) = self.pools.get_mut(id) else { return };
        while pool.unsettled.entries.front().is_some_and(|entry| entry.message <= last) {
            let Some(entry) = pool.unsettled.entries.pop_front() else { break };
            // If the agent is gone there is nobody who keeps it.
            let Some(place) = pool.unsettled.places.get_mut(&entry.agent) else { continue };
            place.entries -= 1;
            place.settled = entry.report;
            if !std::mem::replace(&mut place.to_settle, true) {
                self.to_settle.push((entry.agent, id));
            }
        }
    }

    /// The report that is being taken in has led to a message to the pool's client.
    #[inline]
    pub(crate) fn report_led_on(&mut self, pool: PoolId) {
        let Some((agent, report)) = self.reporting.take() else { return };
        let Some(pool) = self.pools.get_mut(pool).filter(|pool| pool.asked.id.is_some()) else { return };
        if let Some(last) = pool.unsettled.entries.back_mut()
            && (last.agent, last.message) == (agent, UNNUMBERED)
        {
            last.report = report;
        } else if let Some(place) = pool.unsettled.places.get_mut(&agent) {
            place.entries += 1;
            pool.unsettled.entries.push_back(Entry { agent, report, message: UNNUMBERED });
        }
    }

    /// The report that is being taken in was of this job, and its client hears nothing of it.
    pub(crate) fn report_is_used_up(&mut self, job: JobId) {
        let Some((agent, _)) = self.reporting.take() else { return };
        let Some(id) = self.jobs.get(job).map(|job| job.pool) else { return };
        if let Some(place) = self.pools.get_mut(id).and_then(|pool| pool.unsettled.places.get_mut(&agent))
            && !std::mem::replace(&mut place.to_settle, true)
        {
            self.to_settle.push((agent, id));
        }
    }

    /// The report that was taken in had no consequence, if it had none: nobody knows whose it was.
    #[inline]
    pub(crate) fn came_to_nothing(&mut self) {
        let Some((id, _)) = self.reporting.take() else { return };
        if let Some(agent) = self.agents.get_mut(id)
            && !std::mem::replace(&mut agent.strays, true)
        {
            self.stray.push(id);
        }
    }

    /// The client is gone, and nobody else wants to hear what it was told.
    pub(crate) fn settle_all(&mut self, id: PoolId) {
        let Some(pool) = self.pools.get_mut(id).filter(|pool| pool.asked.id.is_some()) else { return };
        pool.unsettled.entries.clear();
        for (&agent, place) in &mut pool.unsettled.places {
            place.entries = 0;
            if !std::mem::replace(&mut place.to_settle, true) {
                self.to_settle.push((agent, id));
            }
        }
    }

    /// The pool is gone, and so is whoever wanted to hear what these agents have reported of it.
    pub(crate) fn settle_pool_at(&self, id: PoolId, agents: Vec<AgentId>, out: &mut Outbox) {
        for agent in agents {
            let report = self.agents.get(agent).map_or(0, |agent| agent.reports);
            if report > 0 {
                out.agent(agent, agent_command::Body::Settled(Settled { pool: id.to_bits(), report }));
            }
        }
    }

    /// Tells agents which reports were settled in this round.
    pub(crate) fn settle(&mut self, out: &mut Outbox) {
        for agent in std::mem::take(&mut self.stray) {
            self.settle_strays(agent);
        }
        for (agent, id) in self.to_settle.drain(..) {
            let Some(pool) = self.pools.get_mut(id) else { continue };
            let Some(place) = pool.unsettled.places.get_mut(&agent) else { continue };
            place.to_settle = false;
            let reports = self.agents.get(agent).map_or(0, |agent| agent.reports);
            if place.entries == 0 {
                place.settled = reports;
            }
            if place.settled > place.told {
                place.told = place.settled;
                let settled = Settled { pool: id.to_bits(), report: place.settled };
                out.agent(agent, agent_command::Body::Settled(settled));
            }
        }
    }

    /// Reports of the agent had no consequence: any pool that runs there may have been theirs.
    fn settle_strays(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.strays = false;
        for (pool_id, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.asked.id.is_some()) {
            if let Some(place) = pool.unsettled.places.get_mut(&id)
                && !std::mem::replace(&mut place.to_settle, true)
            {
                self.to_settle.push((id, pool_id));
            }
        }
    }
}
