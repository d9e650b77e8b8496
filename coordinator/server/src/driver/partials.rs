//! Large messages of agents that are not whole: results, which may be as large as half of the memory.
//!
//! While they take more than a small share of the memory, only one agent at a time is read on that has sent a part of one; others are
//! read on when it is whole. So what agents send at most is bounded, and each gets its results through. An agent that takes too
//! long while others wait, or while the memory is full, is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use farpool_coordinator::AgentId;

use super::super::clock::nanos;
use super::agent::Agent;

pub(super) struct Partials {
    bytes: u64,
    /// What may be here of all agents.
    share: u64,
    /// Who is read on alone, and since when.
    alone: Option<(AgentId, u64)>,
    /// Agents that wait for it.
    waiting: usize,
    patience: u64,
}

/// What the agent that is read on must send at least while others wait, in bytes a second.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 20;

impl Partials {
    /// `patience`: how long an agent may take beside what its bytes take.
    pub(super) fn new(memory: u64, patience: Duration) -> Self {
        Self { bytes: 0, share: memory / 16, alone: None, waiting: 0, patience: nanos(patience) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether more is here than may be of all agents, so that one is read on alone.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes > self.share
    }

    /// Whether the agent is read on alone.
    pub(super) fn is_alone(&self, id: AgentId) -> bool {
        self.alone.is_some_and(|(alone, _)| alone == id)
    }

    /// So many bytes of a message of the agent's are here now, and it does not wait.
    pub(super) fn change(&mut self, agent: &mut Agent, bytes: u64) {
        self.bytes = self.bytes - agent.partial + bytes;
        agent.partial = bytes;
        if std::mem::take(&mut agent.waits) {
            self.waiting -= 1;
        }
    }

    /// Has the agent read on, now or when there is room.
    pub(super) fn give_turn(&mut self, id: AgentId, agent: &mut Agent, now: u64) {
        let is_alone = self.is_alone(id);
        if agent.partial == 0 || !self.is_crowded() {
            if is_alone {
                self.alone = None;
            }
            return agent.session.give_turn();
        }
        if is_alone || self.alone.is_none() {
            self.alone.get_or_insert((id, now));
            return agent.session.give_turn();
        }
        agent.waits = true;
        self.waiting += 1;
    }

    /// When to look at who takes too long.
    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        let (_, since) = self.alone.filter(|_| self.waiting > 0)?;
        Some(since.saturating_add(self.patience).max(now + 1_000_000_000))
    }

    /// Whether somebody may have to wait for the agent that is read on alone. `is_full`: the memory is, for which clients wait.
    pub(super) fn holds_up(&self, is_full: bool) -> bool {
        self.waiting > 0 || (is_full && self.is_crowded())
    }

    /// Takes the agent that is read on alone, if it takes too long.
    pub(super) fn take_late(&mut self, agents: &BTreeMap<AgentId, Agent>, now: u64) -> Option<AgentId> {
        let (id, since) = self.alone?;
        let in_time = |agent: &Agent| agent.partial / LEAST_BYTES_PER_SECOND * 1_000_000_000 + self.patience;
        let is_late = |agent: &Agent| now.saturating_sub(since) > in_time(agent);
        match agents.get(&id) {
            Some(agent) if !is_late(agent) => return None,
            Some(_) => {}
            None => {
                self.alone = None;
                return None;
            }
        }
        self.alone = None;
        Some(id)
    }

    /// Has the next agents read on, as far as there is room.
    pub(super) fn let_next_send(&mut self, agents: &mut BTreeMap<AgentId, Agent>, now: u64) {
        if self.waiting == 0 {
            return;
        }
        for (&id, agent) in agents.iter_mut().filter(|(_, agent)| agent.waits) {
            if self.alone.is_some() && self.is_crowded() {
                return;
            }
            let partial = agent.partial;
            self.change(agent, partial);
            self.give_turn(id, agent, now);
        }
    }
}
