//! Incomplete large messages of agents: results, which may be as large as half of the memory.
//!
//! While they take more than a small share of the memory, only one of the agents with an incomplete message is read. The next one is
//! read when that message is complete. So what agents send is bounded, and all results arrive. An agent that takes too long while
//! others wait, or while the memory is full, is disconnected.

use std::collections::BTreeMap;
use std::time::Duration;

use farpool_coordinator::AgentId;

use super::super::clock::nanos;
use super::agent::Agent;

pub(super) struct Partials {
    bytes: u64,
    /// How many bytes of incomplete messages may be held before only one agent is read.
    share: u64,
    /// The only agent that is read, and since when.
    alone: Option<(AgentId, u64)>,
    /// How many agents wait for it.
    waiting: usize,
    patience: u64,
}

/// How many bytes a second the agent that is read alone has to send while others wait.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 20;

impl Partials {
    /// `patience`: how long an agent that is read alone may take, in addition to the time for its bytes.
    pub(super) fn new(memory: u64, patience: Duration) -> Self {
        Self { bytes: 0, share: memory / 16, alone: None, waiting: 0, patience: nanos(patience) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether the share is exceeded, so that one agent is read alone.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes > self.share
    }

    /// Returns whether the agent is read alone.
    pub(super) fn is_alone(&self, id: AgentId) -> bool {
        self.alone.is_some_and(|(alone, _)| alone == id)
    }

    /// Sets how many bytes of the agent's message have arrived. It no longer waits.
    pub(super) fn change(&mut self, agent: &mut Agent, bytes: u64) {
        self.bytes = self.bytes - agent.partial + bytes;
        agent.partial = bytes;
        if std::mem::take(&mut agent.waits) {
            self.waiting -= 1;
        }
    }

    /// Lets the agent be read, now or when there is room.
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

    /// Returns when to check whether the agent that is read alone takes too long.
    pub(super) fn next_check(&self, now: u64) -> Option<u64> {
        let (_, since) = self.alone.filter(|_| self.waiting > 0)?;
        Some(since.saturating_add(self.patience).max(now + 1_000_000_000))
    }

    /// Returns whether anyone may wait for the agent that is read alone. `is_full`: the memory is full, so clients wait.
    pub(super) fn blocks_others(&self, is_full: bool) -> bool {
        self.waiting > 0 || (is_full && self.is_crowded())
    }

    /// Takes the agent that is read alone, if it takes too long.
    pub(super) fn take_overdue_sender(&mut self, agents: &BTreeMap<AgentId, Agent>, now: u64) -> Option<AgentId> {
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

    /// Lets the next agents be read if there is room.
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
