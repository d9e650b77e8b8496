//! Large messages of agents that are not whole: results, which may be as large as half of the memory.
//!
//! While they take more than a small share of the memory, only one agent at a time is read on that has sent a part of one; others are
//! read on when it is whole. So what agents send at most is bounded, and each gets its results through. An agent that takes too
//! long while others wait, or while the memory is full, is lost.

use std::time::Duration;

use farpool_coordinator::AgentId;
use tonic::Status;

use super::super::clock::nanos;
use super::Driver;
use super::agents::Agent;

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
}

impl Driver {
    /// Has the next agent read on where one is through, or has gone.
    pub(super) fn tend_partials(&mut self) {
        // A client may have to wait too: see `Memory`.
        if self.partials.waiting == 0 && !(self.memory.is_full() && self.partials.is_crowded()) {
            return;
        }
        if let Some((id, since)) = self.partials.alone {
            let Some(agent) = self.agents.get(&id) else {
                self.partials.alone = None;
                return self.tend_partials();
            };
            let in_time = agent.partial / LEAST_BYTES_PER_SECOND * 1_000_000_000 + self.partials.patience;
            if self.now.saturating_sub(since) > in_time {
                let message = "the memory is full, and the agent took too long to send the rest of a message";
                self.end_agent(id, Err(Status::resource_exhausted(message)));
                self.partials.alone = None;
            }
        }
        let waiting: Vec<AgentId> = self.agents.iter().filter(|(_, agent)| agent.waits).map(|(&id, _)| id).collect();
        for id in waiting {
            if self.partials.alone.is_some() && self.partials.is_crowded() {
                return;
            }
            let Some(agent) = self.agents.get_mut(&id) else { continue };
            let partial = agent.partial;
            self.partials.change(agent, partial);
            self.partials.give_turn(id, agent, self.now);
        }
    }
}
