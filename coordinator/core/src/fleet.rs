//! All agents, and their totals.

use crate::agent::{Agent, Credit};
use crate::chunk::{Chunk, Hold};
use crate::ids::{AgentId, ChunkId};
use crate::labels::Labels;
use crate::reach::Reaches;
use crate::slab::{Slab, Table};

/// The agents.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) agents: Table<AgentId, Agent>,
    /// Slots that have nothing and want something.
    pub(crate) idle: u64,
    /// Agents that have room.
    pub(crate) with_room: usize,
}

impl Fleet {
    pub(crate) fn join(&mut self, id: AgentId, slots: u32, labels: Labels) {
        self.agents.put(id, Agent::new(slots, labels));
    }

    /// The agent must hold nothing and be in no reach.
    pub(crate) fn leave(&mut self, id: AgentId) {
        let Some(agent) = self.agents.take(id) else { return };
        debug_assert_eq!(agent.count, 0);
        self.idle -= u64::from(agent.idle());
        self.with_room -= usize::from(agent.has_room());
    }

    pub(crate) fn set_credit(&mut self, id: AgentId, credit: Credit, reaches: &mut Reaches) -> bool {
        self.change(id, reaches, |agent| agent.credit = credit).is_some()
    }

    /// The agent holds the chunk from now on.
    #[inline]
    pub(crate) fn hold(&mut self, id: ChunkId, chunks: &mut Slab<ChunkId, Chunk>, reaches: &mut Reaches) {
        let chunk = chunks.get(id).expect("a held chunk exists");
        let (agent, bytes) = (chunk.agent, chunk.item_bytes * chunk.done.left());
        let held = self.change(agent, reaches, |agent| {
            agent.count += 1;
            agent.bytes += bytes;
            agent.held.push(id, chunks);
        });
        held.expect("the agent that gets a chunk exists");
    }

    /// The agent no longer holds the chunk.
    #[inline]
    pub(crate) fn release(&mut self, id: ChunkId, chunks: &mut Slab<ChunkId, Chunk>, reaches: &mut Reaches) {
        let chunk = chunks.get(id).expect("a held chunk exists");
        let (agent, bytes) = (chunk.agent, chunk.item_bytes * chunk.done.left());
        debug_assert!(!matches!(chunk.hold, Hold::Retracting { .. }), "another agent waits for the chunk");
        let released = self.change(agent, reaches, |agent| {
            agent.count -= 1;
            agent.bytes -= bytes;
            agent.held.unlink(id, chunks);
        });
        released.expect("the chunk's agent exists");
    }

    /// The agent has finished items of a chunk, this many bytes in total.
    #[inline]
    pub(crate) fn give_back_bytes(&mut self, id: AgentId, bytes: u64, reaches: &mut Reaches) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        // Usually this changes no decision, and then nothing needs updating.
        if agent.credit.bytes == 0 || agent.bytes < agent.credit.bytes {
            agent.bytes -= bytes;
        } else {
            self.change(id, reaches, |agent| agent.bytes -= bytes);
        }
    }

    /// Changes an agent, and marks what depends on it for an update before the next decision.
    #[inline]
    pub(crate) fn change<R>(
        &mut self,
        id: AgentId,
        reaches: &mut Reaches,
        change: impl FnOnce(&mut Agent) -> R,
    ) -> Option<R> {
        let agent = self.agents.get_mut(id)?;
        let (idle, with_room) = (agent.idle(), agent.has_room());
        let result = change(agent);
        self.idle = self.idle - u64::from(idle) + u64::from(agent.idle());
        self.with_room = self.with_room - usize::from(with_room) + usize::from(agent.has_room());
        let spare = agent.spare() > 0;
        reaches.outdate(&mut agent.reaches, spare);
        Some(result)
    }

    /// Checks the totals.
    pub(crate) fn check(&self) {
        let agents = || self.agents.iter().map(|(_, agent)| agent);
        assert_eq!(self.idle, agents().map(|agent| u64::from(agent.idle())).sum::<u64>());
        assert_eq!(self.with_room, agents().filter(|agent| agent.has_room()).count());
    }
}
