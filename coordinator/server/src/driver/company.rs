//! Messages to agents that may be delayed, and when they are sent at the latest.

use std::collections::{BTreeSet, VecDeque};

use farpool_coordinator::AgentId;

/// The agents that may have delayed messages.
#[derive(Default)]
pub(super) struct Company {
    /// When to check which agent. Each agent is in it once; one that was checked too early waits for those before it.
    looks: VecDeque<(u64, AgentId)>,
    agents: BTreeSet<AgentId>,
}

impl Company {
    /// Notes that a message to this agent is delayed until then.
    pub(super) fn expect(&mut self, agent: AgentId, until: u64) {
        if self.agents.insert(agent) {
            self.looks.push_back((until, agent));
        }
    }

    pub(super) fn next_look(&self) -> Option<u64> {
        self.looks.front().map(|(at, _)| *at)
    }

    /// Takes the next agent to check by now.
    pub(super) fn take_due(&mut self, now: u64) -> Option<AgentId> {
        if self.next_look()? > now {
            return None;
        }
        let (_, agent) = self.looks.pop_front()?;
        self.agents.remove(&agent);
        Some(agent)
    }
}
