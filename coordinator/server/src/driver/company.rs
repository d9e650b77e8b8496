//! What agents need not know at once, and when it is sent at the latest.

use std::collections::{BTreeSet, VecDeque};

use farpool_coordinator::AgentId;

/// The agents for which something may wait for company.
#[derive(Default)]
pub(super) struct Company {
    /// When to look at which of them. Each agent is in it once; one that was looked at too early waits for those before it.
    looks: VecDeque<(u64, AgentId)>,
    agents: BTreeSet<AgentId>,
}

impl Company {
    /// Something waits for this agent until then.
    pub(super) fn expect(&mut self, agent: AgentId, until: u64) {
        if self.agents.insert(agent) {
            self.looks.push_back((until, agent));
        }
    }

    pub(super) fn next_look(&self) -> Option<u64> {
        self.looks.front().map(|(at, _)| *at)
    }

    /// Takes the next agent that is to be looked at by now.
    pub(super) fn take_due(&mut self, now: u64) -> Option<AgentId> {
        if self.next_look()? > now {
            return None;
        }
        let (_, agent) = self.looks.pop_front()?;
        self.agents.remove(&agent);
        Some(agent)
    }
}
