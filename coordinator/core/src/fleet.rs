//! All agents, and which of them should get or give the next chunk.

use crate::agent::{Agent, Room, Surplus};
use crate::chunk::{Chunk, Hold};
use crate::heap::IndexedHeap;
use crate::ids::{AgentId, ChunkId, Id};
use crate::slab::{Slab, Table};

/// The agents.
///
/// Two heaps order them. A change of an agent only notes that its keys are outdated; they are put right once before
/// the next decision, however many reports came in between.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) agents: Table<AgentId, Agent>,
    room: IndexedHeap<Room>,
    surplus: IndexedHeap<Surplus>,
    outdated: Vec<u32>,
    slots: u64,
    idle: u64,
    retracting: u64,
}

impl Fleet {
    pub(crate) fn join(&mut self, id: AgentId, slots: u32) {
        self.agents.put(id, Agent::new(slots));
        self.slots += u64::from(slots);
    }

    /// The agent must hold nothing any more.
    pub(crate) fn leave(&mut self, id: AgentId) {
        let Some(agent) = self.agents.take(id) else { return };
        debug_assert_eq!(agent.count, 0);
        self.slots -= u64::from(agent.slots());
        self.idle -= u64::from(agent.idle());
        self.room.set(id.index(), None);
        self.surplus.set(id.index(), None);
    }

    pub(crate) fn set_credit(&mut self, id: AgentId, chunks: u32) -> bool {
        self.change(id, |agent| agent.set_credit(chunks)).is_some()
    }

    /// The agent gets nothing more.
    pub(crate) fn drain(&mut self, id: AgentId) {
        self.change(id, |agent| agent.drain()).expect("an agent that drains is there");
    }

    /// The agent holds the chunk from now on.
    #[inline]
    pub(crate) fn hold(&mut self, id: AgentId, chunk: ChunkId, chunks: &mut Slab<ChunkId, Chunk>) {
        let held = self.change(id, |agent| {
            agent.count += 1;
            agent.held.push(chunk, chunks);
        });
        held.expect("a chunk goes to an agent that is there");
    }

    /// The agent holds the chunk no more.
    #[inline]
    pub(crate) fn release(&mut self, id: AgentId, chunk: ChunkId, chunks: &mut Slab<ChunkId, Chunk>) {
        let retracting = chunks.get(chunk).is_some_and(|chunk| chunk.hold == Hold::Retracting);
        self.retracting -= u64::from(retracting);
        let released = self.change(id, |agent| {
            agent.count -= 1;
            agent.retracting -= u32::from(retracting);
            agent.held.unlink(chunk, chunks);
        });
        released.expect("a chunk is at an agent that is there");
    }

    /// Moves a chunk to another hold.
    pub(crate) fn set_hold(&mut self, id: AgentId, chunk: ChunkId, hold: Hold, chunks: &mut Slab<ChunkId, Chunk>) {
        self.release(id, chunk, chunks);
        chunks.get_mut(chunk).expect("a chunk that is held exists").hold = hold;
        self.hold(id, chunk, chunks);
        if hold == Hold::Retracting {
            self.retracting += 1;
            self.change(id, |agent| agent.retracting += 1);
        }
    }

    /// Puts the heaps right; to be called before the next decision.
    pub(crate) fn refresh(&mut self) {
        while let Some(index) = self.outdated.pop() {
            let agent = self.agents.id_at(index).and_then(|id| self.agents.get_mut(id));
            // An agent that has left is in no heap.
            let Some(agent) = agent else { continue };
            agent.outdated = false;
            self.room.set(index, agent.room());
            self.surplus.set(index, agent.surplus());
        }
    }

    /// Who should get the next chunk.
    #[inline]
    pub(crate) fn roomiest(&self) -> Option<AgentId> {
        self.room.first().and_then(|(index, _)| self.agents.id_at(index))
    }

    /// Who should be asked to give one back.
    pub(crate) fn fullest(&self) -> Option<AgentId> {
        self.surplus.first().and_then(|(index, _)| self.agents.id_at(index))
    }

    /// Workers that all agents run at once.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// Slots that want a chunk for which none has been asked back yet.
    pub(crate) fn unserved(&self) -> u64 {
        self.idle.saturating_sub(self.retracting)
    }

    #[inline]
    fn change(&mut self, id: AgentId, change: impl FnOnce(&mut Agent)) -> Option<()> {
        let agent = self.agents.get_mut(id)?;
        let before = agent.idle();
        change(agent);
        self.idle = self.idle - u64::from(before) + u64::from(agent.idle());
        if !agent.outdated {
            agent.outdated = true;
            self.outdated.push(id.index());
        }
        Some(())
    }

    /// That the sums are right, and the heaps wherever they claim to be.
    pub(crate) fn check(&self) {
        let agents = || self.agents.iter().map(|(_, agent)| agent);
        assert_eq!(self.slots, agents().map(|agent| u64::from(agent.slots())).sum::<u64>());
        assert_eq!(self.idle, agents().map(|agent| u64::from(agent.idle())).sum::<u64>());
        assert_eq!(self.retracting, agents().map(|agent| u64::from(agent.retracting)).sum::<u64>());
        self.room.check();
        self.surplus.check();
        for (id, agent) in self.agents.iter().filter(|(_, agent)| !agent.outdated) {
            assert_eq!(self.room.key(id.index()), agent.room(), "{id:?} is misplaced");
            assert_eq!(self.surplus.key(id.index()), agent.surplus(), "{id:?} is misplaced");
        }
    }
}
