//! Which agents run the workers of a pool with a limit.
//!
//! Workers are allotted one by one, each to the agent that has the least part of its slots committed to such pools, as long
//! as there is a slot of an agent that may run the pool. What an agent that goes, or cannot run the pool, was allotted
//! goes to others; what could be allotted nowhere waits for an agent that comes. Nothing else moves: a worker that has been
//! started is worth more than an even spread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;

use crate::action::Action;
use crate::chunk::Chunk;
use crate::core::Core;
use crate::ids::{AgentId, Id, PlaceId, PoolId};
use crate::pool::Stage;

impl Core {
    /// Allots what has not been.
    pub(crate) fn allot(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        let Some(mut missing) = self.missing(id) else { return };
        let agents = self.fleet.agents.iter().filter(|&(agent, _)| self.open_slots(id, agent) > 0);
        let mut least: BinaryHeap<_> =
            agents.map(|(id, agent)| Reverse((agent.commitment(), id.index(), id))).collect();
        let mut given: BTreeMap<AgentId, u32> = BTreeMap::new();
        while missing > 0
            && let Some(Reverse((_, index, agent))) = least.pop()
        {
            missing -= 1;
            let more = given.entry(agent).or_default();
            *more += 1;
            let state = self.fleet.agents.get_mut(agent).expect("it was just found");
            state.committed += 1;
            if self.open_slots(id, agent) > given[&agent] {
                let commitment = self.fleet.agents.get(agent).expect("it was just found").commitment();
                least.push(Reverse((commitment, index, agent)));
            }
        }
        for (agent, more) in given {
            self.give(id, agent, more, actions);
        }
    }

    /// Allots to this agent what has not been allotted.
    pub(crate) fn allot_at(&mut self, id: PoolId, agent: AgentId, actions: &mut Vec<Action>) {
        let Some(missing) = self.missing(id) else { return };
        let more = missing.min(self.open_slots(id, agent));
        if more > 0 {
            self.fleet.agents.get_mut(agent).expect("it was just found").committed += u64::from(more);
            self.give(id, agent, more, actions);
        }
    }

    /// Takes workers back from a place, down to so many.
    pub(crate) fn free(&mut self, id: PoolId, place: PlaceId, left: u32) {
        let pool = self.pools.get_mut(id).expect("a place's pool is open");
        if pool.limit.is_none() {
            return;
        }
        let Some(place) = pool.places.get_mut(place) else { return };
        debug_assert!(place.retired || left == 0);
        let less = place.workers.saturating_sub(left);
        place.workers -= less;
        pool.allotted -= less;
        if let Some(agent) = self.fleet.agents.get_mut(place.agent) {
            agent.committed -= u64::from(less);
        }
    }

    /// An agent that is leaving needs only as many workers as may still run something there. The others are allotted
    /// elsewhere at once; the rest when it is through, so that there are never more than the limit.
    pub(crate) fn shrink_if_draining(&mut self, agent: AgentId, actions: &mut Vec<Action>) {
        let Some(state) = self.fleet.agents.get(agent).filter(|agent| agent.draining) else { return };
        for (id, place) in state.places.clone() {
            let pool = self.pools.get(id).expect("a place's pool is open");
            let state = pool.places.get(place).expect("an agent's place is there");
            // Each chunk keeps one worker at least, so there is nothing to count.
            if pool.limit.is_none() || state.count >= state.workers {
                continue;
            }
            let busy = self.may_keep_busy(agent, place, id);
            if busy < state.workers.into() {
                self.free(id, place, busy as u32);
                self.allot(id, actions);
            }
        }
    }

    /// How many workers what is held at a place may keep busy.
    fn may_keep_busy(&self, agent: AgentId, place: PlaceId, pool: PoolId) -> u64 {
        let held = self.chunks_of(agent, |chunk| {
            chunk.place == place && self.jobs.get(chunk.job).is_some_and(|job| job.pool == pool)
        });
        let workers = |chunk: &Chunk| {
            let whole = self.jobs.get(chunk.job).is_some_and(|job| job.policy.chunksize.is_some());
            if whole { 1 } else { chunk.done.left() }
        };
        held.into_iter().filter_map(|chunk| self.chunks.get(chunk)).map(workers).sum()
    }

    /// Workers of a pool with a limit that are allotted nowhere; none: there is nothing to allot.
    fn missing(&self, id: PoolId) -> Option<u32> {
        let pool = self.pools.get(id)?;
        Some(pool.limit?.get() - pool.allotted).filter(|&missing| missing > 0)
    }

    /// How many more workers of the pool the agent may have.
    fn open_slots(&self, id: PoolId, agent: AgentId) -> u32 {
        let (Some(pool), Some(state)) = (self.pools.get(id), self.fleet.agents.get(agent)) else { return 0 };
        if state.draining || !state.labels.include(&pool.require) {
            return 0;
        }
        match pool.places.id_at(agent).and_then(|place| pool.places.get(place)) {
            Some(place) if place.stage == Stage::Unfit => 0,
            Some(place) => state.slots() - place.workers,
            None => state.slots(),
        }
    }

    fn give(&mut self, id: PoolId, agent: AgentId, more: u32, actions: &mut Vec<Action>) {
        let pool = self.pools.get_mut(id).expect("a pool that is given workers is open");
        pool.allotted += more;
        let Some(place) = pool.places.id_at(agent).and_then(|place| pool.places.get_mut(place)) else {
            self.add_place(id, agent, more);
            actions.push(Action::StartPool { agent, pool: id, workers: NonZeroU32::new(more) });
            return;
        };
        place.workers += more;
        pool.offered += u64::from(more);
        if let Some(workers) = NonZeroU32::new(place.workers) {
            actions.push(Action::ResizePool { agent, pool: id, workers });
        }
        self.widen(id, agent, more);
    }
}
