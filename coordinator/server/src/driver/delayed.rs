//! Messages to agents that may be delayed, and the latest time to send them.

use std::collections::{BTreeSet, VecDeque};

use farpool_coordinator::AgentId;

/// The agents that may have delayed messages.
#[derive(Default)]
pub(super) struct DelayedSends {
    /// When to check which agent. Each agent is listed once; an agent that was checked too early moves to the end.
    checks: VecDeque<(u64, AgentId)>,
    agents: BTreeSet<AgentId>,
}

impl DelayedSends {
    /// Notes that a message to this agent is delayed until this time.
    pub(super) fn add(&mut self, agent: AgentId, until: u64) {
        if self.agents.insert(agent) {
            self.checks.push_back((until, agent));
        }
    }

    pub(super) fn next_check(&self) -> Option<u64> {
        self.checks.front().map(|(at, _)| *at)
    }

    /// Takes the next agent that is due for a check.
    pub(super) fn take_due(&mut self, now: u64) -> Option<AgentId> {
        if self.next_check()? > now {
            return None;
        }
        let (_, agent) = self.checks.pop_front()?;
        self.agents.remove(&agent);
        Some(agent)
    }
}
