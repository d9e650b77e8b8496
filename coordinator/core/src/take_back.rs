//! Takes chunks back for slots that are idle elsewhere.

use crate::action::Action;
use crate::agent::FULL_LOAD;
use crate::chunk::{Chunk, Hold};
use crate::core::Core;
use crate::ids::{AgentId, ChunkId, LaneId, ReachId};

/// A chunk is late when it has been at its agent for this many times its expected time.
const LATE_FACTOR: u64 = 4;

/// How often to look for late chunks, in chunk targets, and how many chunks to check at a time.
const LATE_CHECK_TARGETS: u64 = 4;
const LATE_LOOK_CHUNKS: u32 = 4096;

/// How many of an agent's newest chunks to check for one that may run elsewhere.
const MOST_LOOKED_THROUGH: usize = 16;

impl Core {
    /// Asks agents that hold more than they run for one chunk for each idle slot that may run it. A slot is idle if it
    /// has credit and does not use it. So after [`hand_out`](Self::hand_out) a slot is idle only when nothing is queued
    /// for it.
    ///
    /// It asks for the newest chunk, which is the least likely to have begun, and never again for one that has. It
    /// checks only reaches that have changed since the last time.
    pub(crate) fn take_back(&mut self, now: u64, actions: &mut Vec<Action>) {
        while self.fleet.idle > 0
            && let Some(reach) = self.reaches.next_look()
        {
            self.take_back_in(reach, actions);
        }
        if self.fleet.idle > 0 && now >= self.next_late_check && !self.chunks.is_empty() {
            self.next_late_check = now.saturating_add(LATE_CHECK_TARGETS.saturating_mul(self.config.chunk_target_ns));
            self.take_back_late(now, actions);
        }
    }

    fn take_back_in(&mut self, reach: ReachId, actions: &mut Vec<Action>) {
        self.refresh(reach);
        while let Some(from) = self.reaches.all.get(reach).and_then(|reach| reach.surplus.first())
            && let Some(to) = self.idle_in(reach, None)
        {
            let agent = self.reaches.agent(reach, from.0).expect("an agent with a surplus is in the reach");
            match self.newest_in(reach, agent) {
                Some(chunk) => self.retract(agent, chunk, to, actions),
                // Its spare chunks are of other lanes.
                None => self.reaches.cannot_spare(reach, from.0),
            }
            self.refresh(reach);
        }
        let partner = self.reaches.all.get(reach).and_then(|reach| reach.partner);
        if let Some(common) = partner {
            self.refresh(common);
            self.take_back_between(reach, reach, common, actions);
            self.take_back_between(reach, common, reach, actions);
        }
    }

    /// Takes back chunks of the only lane of the reach `own`: from an agent there for an idle one in the shared reach, or
    /// the other way round.
    fn take_back_between(&mut self, own: ReachId, from: ReachId, to: ReachId, actions: &mut Vec<Action>) {
        while let Some((number, _)) = self.reaches.all.get(from).and_then(|reach| reach.surplus.first())
            && let Some(idle) = self.idle_in(to, None)
        {
            let agent = self.reaches.agent(from, number).expect("an agent with a surplus is in the reach");
            let Some(chunk) = self.newest_in(own, agent) else { return };
            self.retract(agent, chunk, idle, actions);
            self.refresh(from);
            self.refresh(to);
        }
    }

    /// Handles slots that are idle, have nothing to run, and for which no agent has a chunk to spare. An adaptive chunk
    /// may be far too big, because its items take longer than earlier ones. It can still give up the items that have
    /// not begun. And a copy of a chunk that takes too long may finish sooner.
    fn take_back_late(&mut self, now: u64, actions: &mut Vec<Action>) {
        let all = self.chunks.index_count();
        for _ in 0..all.min(LATE_LOOK_CHUNKS) {
            self.late_cursor = if self.late_cursor + 1 < all { self.late_cursor + 1 } else { 0 };
            let Some(id) = self.chunks.id_at(self.late_cursor) else { continue };
            let Some(chunk) = self.chunks.get(id) else { continue };
            let is_late = self.is_late(chunk, now);
            if !is_late && (self.speculating == 0 || !self.straggles(chunk, now)) {
                continue;
            }
            let (agent, lane) = (chunk.agent, self.jobs.get(chunk.job).expect("a chunk's job is open").lane);
            match self.idle_for(lane, agent) {
                Some(to) if is_late => self.retract(agent, id, to, actions),
                Some(to) => self.copy(id, to, now, actions),
                None => {}
            }
            if self.fleet.idle == 0 {
                break;
            }
        }
    }

    fn is_late(&self, chunk: &Chunk, now: u64) -> bool {
        let late = now.saturating_sub(chunk.time.assigned_at) > LATE_FACTOR.saturating_mul(self.config.chunk_target_ns);
        late && chunk.hold == Hold::Assigned && chunk.done.left() > 1 && {
            let job = self.jobs.get(chunk.job).expect("a chunk's job is open");
            job.policy.chunksize.is_none() && !self.pools.get(job.pool).expect("a job's pool is open").paused
        }
    }

    /// Returns an agent other than `except` that is idle and may run chunks of the lane.
    fn idle_for(&mut self, lane: LaneId, except: AgentId) -> Option<AgentId> {
        let lane = self.lanes.get(lane).expect("the job's lane exists");
        let (own, common) = (lane.own, lane.common);
        for reach in std::iter::once(own).chain(common) {
            self.refresh(reach);
            if let Some(agent) = self.idle_in(reach, Some(except)) {
                return Some(agent);
            }
        }
        None
    }

    /// Returns the least loaded agent of a reach, if it is idle.
    fn idle_in(&self, id: ReachId, except: Option<AgentId>) -> Option<AgentId> {
        let reach = self.reaches.all.get(id)?;
        let (mut number, mut room) = reach.room.first()?;
        if except.is_some() && self.reaches.agent(id, number) == except {
            (number, room) = reach.room.first_except(number)?;
        }
        let agent = self.reaches.agent(id, number)?;
        let idles = room.load < FULL_LOAD && self.fleet.agents.get(agent).is_some_and(|agent| agent.idle() > 0);
        idles.then_some(agent)
    }

    /// Returns the agent's newest chunk that may be retracted and may run on the other agents of the reach.
    fn newest_in(&self, id: ReachId, agent: AgentId) -> Option<ChunkId> {
        let held = &self.fleet.agents.get(agent)?.held;
        held.movable(&self.chunks).take(MOST_LOOKED_THROUGH).find(|&chunk| {
            let job =
                self.chunks.get(chunk).and_then(|chunk| self.jobs.get(chunk.job)).expect("the chunk's job is open");
            let lane = self.lanes.get(job.lane).expect("the job's lane exists");
            let paused = self.pools.get(job.pool).expect("a job's pool is open").paused;
            !paused && (lane.own == id || lane.common == Some(id))
        })
    }

    fn retract(&mut self, agent: AgentId, id: ChunkId, to: AgentId, actions: &mut Vec<Action>) {
        self.set_hold(id, Hold::Retracting { to });
        actions.push(Action::Retract { agent, chunk: id });
    }

    /// Changes the hold of a chunk.
    pub(crate) fn set_hold(&mut self, id: ChunkId, hold: Hold) {
        let Self { chunks, jobs, pools, fleet, reaches, .. } = self;
        let chunk = chunks.get(id).expect("a held chunk exists");
        let (agent, place, before) = (chunk.agent, chunk.place, chunk.hold);
        let pool = jobs.get(chunk.job).and_then(|job| pools.get_mut(job.pool)).expect("a chunk's pool is open");
        for (hold, more) in [(before, false), (hold, true)] {
            let Hold::Retracting { to } = hold else { continue };
            let count = |number: &mut u32| *number = if more { *number + 1 } else { *number - 1 };
            count(&mut pool.places.get_mut(place).expect("the chunk's place exists").retracting);
            fleet.change(agent, reaches, |agent| count(&mut agent.retracting));
            // That agent's place may be gone.
            if let Some(promised) = pool.places.id_at(to).and_then(|to| pool.places.get_mut(to)) {
                count(&mut promised.promised);
            }
            fleet.change(to, reaches, |agent| count(&mut agent.promised));
        }
        fleet.change(agent, reaches, |agent| {
            agent.held.unlink(id, chunks);
            chunks.get_mut(id).expect("the chunk was just found").hold = hold;
            agent.held.push(id, chunks);
        });
    }
}
