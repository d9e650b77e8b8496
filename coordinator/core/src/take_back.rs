//! Takes chunks back where slots idle elsewhere.

use crate::action::Action;
use crate::chunk::{Chunk, Hold};
use crate::core::Core;
use crate::ids::{AgentId, ChunkId};

/// A chunk that has been at its agent for this many times what it should take is late.
const LATE_FACTOR: u64 = 4;

/// Looking for late chunks means looking at all of them, so it is done once in so many chunk targets.
const LATE_LOOK_TARGETS: u64 = 4;

impl Core {
    /// Asks agents that hold more than they run for one chunk for each slot that idles. Idling means to have credit
    /// and not to use it, so after [`hand_out`](Self::hand_out) a slot idles only when nothing is queued.
    ///
    /// It asks for the newest chunk, which is the least likely to have begun, and never again for one that has.
    pub(crate) fn take_back(&mut self, now: u64, actions: &mut Vec<Action>) {
        while self.fleet.unserved() > 0
            && let Some(agent) = self.fleet.fullest()
        {
            let held = &self.fleet.agents.get(agent).expect("an agent in the heap is there").held;
            let chunk = held.newest_movable(&self.chunks).expect("an agent with a surplus has one to give");
            self.retract(agent, chunk, actions);
        }
        if self.fleet.unserved() > 0 && now >= self.next_late_look {
            self.next_late_look = now.saturating_add(LATE_LOOK_TARGETS.saturating_mul(self.config.chunk_target_ns));
            self.take_back_late(now, actions);
        }
    }

    /// Slots idle and no agent has a chunk to spare. An adaptive chunk that turned out to be far too big, because its
    /// items take longer than those before, can still give up the items that have not begun.
    fn take_back_late(&mut self, now: u64, actions: &mut Vec<Action>) {
        let late = self.chunks.iter().filter(|(_, chunk)| self.is_late(chunk, now));
        let late: Vec<_> = late.map(|(id, chunk)| (id, chunk.agent)).take(self.fleet.unserved() as usize).collect();
        for (chunk, agent) in late {
            self.retract(agent, chunk, actions);
        }
    }

    fn is_late(&self, chunk: &Chunk, now: u64) -> bool {
        let adaptive = self.jobs.jobs.get(chunk.job).is_some_and(|job| job.policy.chunksize.is_none());
        let late = now.saturating_sub(chunk.time.assigned_at) > LATE_FACTOR.saturating_mul(self.config.chunk_target_ns);
        adaptive && late && chunk.hold == Hold::Assigned && chunk.done.left() > 1
    }

    fn retract(&mut self, agent: AgentId, chunk: ChunkId, actions: &mut Vec<Action>) {
        self.fleet.set_hold(agent, chunk, Hold::Retracting, &mut self.chunks);
        actions.push(Action::Retract { agent, chunk });
        self.fleet.refresh();
    }
}
