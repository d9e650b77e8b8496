//! Where a pool runs, is about to run, and cannot run.
//!
//! A place is pending, and the pool does not start there, until the pool's client has acknowledged it. A client that
//! opens its pool again lists where it ran. Items that may not run twice run again only if all of these agents are
//! back. So nothing may run at an agent that the client could leave out. Also, a lost agent whose items have failed may
//! not hold the pool again before the client knows of these failures. Both are safe once the client has acknowledged
//! that the pool runs there, because it acknowledges messages in order.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use farpool_proto::v1::Failure;

use crate::AgentId;
use crate::convert::HeldPool;
use crate::outbox::UNNUMBERED;

/// The places of one pool.
#[derive(Default)]
pub(crate) struct Places {
    /// The agents that were told to start it and have not reported that it has stopped.
    at: BTreeSet<AgentId>,
    /// Agents where it has not started.
    pending: BTreeMap<AgentId, Pending>,
    /// Agents that were told to stop it because its workers are needed elsewhere.
    given_up: BTreeSet<AgentId>,
    /// The agents that cannot run it, and why.
    unfit: BTreeMap<AgentId, Failure>,
    /// The agents where its workers die before they can serve, while those of other pools can; and why.
    unhealthy: BTreeMap<AgentId, String>,
    /// Whether any agent has run it.
    proven: bool,
}

/// A place that has not started.
pub(crate) struct Pending {
    /// Workers that it will have there; `None`: as many as the agent has slots.
    pub(crate) workers: Option<NonZeroU32>,
    /// What the agent holds of the pool from before.
    pub(crate) held: Option<HeldPool>,
    /// The client's message whose acknowledgement starts it; 0: the client knows the place.
    message: u64,
}

impl Pending {
    /// A place that starts when the client has acknowledged what is in the outbox for it.
    pub(crate) fn until_acknowledged(workers: Option<NonZeroU32>, held: Option<HeldPool>) -> Self {
        Self { workers, held, message: UNNUMBERED }
    }

    /// A place that starts in this round, with what the agent holds.
    pub(crate) fn to_adopt(workers: Option<NonZeroU32>, held: HeldPool) -> Self {
        Self { workers, held: Some(held), message: 0 }
    }
}

/// The effect of an agent's report that it has stopped the pool.
pub(crate) struct Stopped {
    /// Whether it was told to, because the workers are needed elsewhere.
    pub(crate) given_up: bool,
}

impl Places {
    /// Returns the agents that were told to start it and have not reported that it has stopped.
    pub(crate) fn agents(&self) -> impl ExactSizeIterator<Item = AgentId> {
        self.at.iter().copied()
    }

    /// Whether the agent was told to start it and has not reported that it has stopped.
    pub(crate) fn is_at(&self, agent: AgentId) -> bool {
        self.at.contains(&agent)
    }

    pub(crate) fn is_nowhere(&self) -> bool {
        self.at.is_empty()
    }

    /// Whether it runs, or is about to run, at the agent.
    pub(crate) fn includes(&self, agent: AgentId) -> bool {
        self.at.contains(&agent) || self.pending.contains_key(&agent)
    }

    /// Whether it runs at the agent as far as is known, so that reports about it count.
    pub(crate) fn works_at(&self, agent: AgentId) -> bool {
        self.at.contains(&agent) && !self.unfit.contains_key(&agent)
    }

    /// Returns the agents that run it, and have not been told to stop it.
    pub(crate) fn working(&self) -> impl Iterator<Item = AgentId> {
        self.at.iter().copied().filter(|agent| !self.given_up.contains(agent) && !self.unfit.contains_key(agent))
    }

    /// The agent is told to start it.
    pub(crate) fn start(&mut self, agent: AgentId) {
        self.at.insert(agent);
    }

    pub(crate) fn add_pending(&mut self, agent: AgentId, place: Pending) {
        self.pending.insert(agent, place);
    }

    pub(crate) fn take_pending(&mut self, agent: AgentId) -> Option<Pending> {
        self.pending.remove(&agent)
    }

    pub(crate) fn take_all_pending(&mut self) -> BTreeMap<AgentId, Pending> {
        std::mem::take(&mut self.pending)
    }

    /// Takes a place that starts now that the client has acknowledged its messages up to this one.
    pub(crate) fn take_acknowledged(&mut self, last: u64) -> Option<(AgentId, Pending)> {
        let (&agent, _) = self.pending.iter().find(|(_, place)| place.message <= last)?;
        Some((agent, self.pending.remove(&agent)?))
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sets how many workers a pending place will have. Returns false if it has started.
    pub(crate) fn resize_pending(&mut self, agent: AgentId, workers: NonZeroU32) -> bool {
        self.pending.get_mut(&agent).map(|place| place.workers = Some(workers)).is_some()
    }

    /// Messages about places have numbers now, up to this one.
    pub(crate) fn number(&mut self, last: u64) {
        for place in self.pending.values_mut().filter(|place| place.message == UNNUMBERED) {
            place.message = last;
        }
    }

    /// The agent is told to stop it, because its workers are needed elsewhere.
    pub(crate) fn give_up(&mut self, agent: AgentId) {
        self.given_up.insert(agent);
    }

    /// It serves at the agent. Returns whether its workers died there before.
    pub(crate) fn mark_serving_at(&mut self, agent: AgentId) -> bool {
        self.proven = true;
        self.unhealthy.remove(&agent).is_some()
    }

    /// Its workers die there. Returns false if that was known.
    pub(crate) fn set_unhealthy_at(&mut self, agent: AgentId, reason: String) -> bool {
        self.unhealthy.insert(agent, reason).is_none()
    }

    /// Returns the agents where its workers die, and why.
    pub(crate) fn unhealthy(&self) -> &BTreeMap<AgentId, String> {
        &self.unhealthy
    }

    /// It cannot run there.
    pub(crate) fn set_unfit(&mut self, agent: AgentId, why: Failure) {
        self.unfit.insert(agent, why);
    }

    /// Returns why one of the unfit agents cannot run it.
    pub(crate) fn why_unfit(&self) -> Option<&Failure> {
        self.unfit.values().next_back()
    }

    /// Returns why it cannot run anywhere, if it never has and there is such a reason.
    pub(crate) fn why_never_fit(&self) -> Option<&Failure> {
        self.why_unfit().filter(|_| !self.proven)
    }

    /// Returns at how many agents it runs, without the unfit ones.
    pub(crate) fn fit(&self) -> usize {
        self.at.iter().filter(|agent| !self.unfit.contains_key(agent)).count()
    }

    /// The agent reports that it has stopped it. `unasked_allowed`: whether it may do so unasked.
    /// Returns `None` if it may not.
    pub(crate) fn stopped_at(&mut self, agent: AgentId, unasked_allowed: bool) -> Option<Stopped> {
        let given_up = self.given_up.remove(&agent);
        if !(unasked_allowed || given_up || self.unfit.contains_key(&agent)) {
            return None;
        }
        self.at.remove(&agent);
        self.unhealthy.remove(&agent);
        Some(Stopped { given_up })
    }

    /// The agent is gone. Returns whether it was a place.
    pub(crate) fn forget(&mut self, agent: AgentId) -> bool {
        self.unfit.remove(&agent);
        self.unhealthy.remove(&agent);
        self.given_up.remove(&agent);
        self.pending.remove(&agent).is_some() | self.at.remove(&agent)
    }
}
