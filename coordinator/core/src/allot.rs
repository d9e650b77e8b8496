//! Chooses the agents that run the workers of a pool with a limit.
//!
//! Workers are allotted one by one, each to the agent with the smallest part of its slots committed to such pools, as
//! long as an agent that may run the pool has a free slot. Agents whose workers die at start are used only when no
//! other has a slot. If an agent leaves or cannot run the pool, its workers are allotted to others. Workers that could
//! be allotted nowhere wait for a new agent. Nothing else moves: a started worker is worth more than an even spread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;

use crate::action::Action;
use crate::chunk::Chunk;
use crate::core::Core;
use crate::ids::{AgentId, Id, LaneId, PlaceId, PoolId};
use crate::pool::{Place, Stage};

impl Core {
    /// Allots the workers that are not allotted yet.
    pub(crate) fn allot(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        self.allot_if_many_lanes(id, actions);
        self.allot_evenly(id, actions);
    }

    fn allot_evenly(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        let Some(mut missing) = self.missing(id) else { return };
        let agents = self.fleet.agents.iter().filter(|&(agent, _)| self.open_slots(id, agent) > 0);
        let mut least: BinaryHeap<_> =
            agents.map(|(agent, _)| Reverse((self.commitment(id, agent), agent.index(), agent))).collect();
        let mut given: BTreeMap<AgentId, u32> = BTreeMap::new();
        while missing > 0
            && let Some(Reverse((_, index, agent))) = least.pop()
        {
            missing -= 1;
            let more = given.entry(agent).or_default();
            *more += 1;
            let state = self.fleet.agents.get_mut(agent).expect("the agent was just found");
            state.committed += 1;
            if self.open_slots(id, agent) > given[&agent] {
                least.push(Reverse((self.commitment(id, agent), index, agent)));
            }
        }
        for (agent, more) in given {
            self.give(id, agent, more, actions);
        }
    }

    /// Allots to this agent workers that are not allotted yet.
    pub(crate) fn allot_at(&mut self, id: PoolId, agent: AgentId, actions: &mut Vec<Action>) {
        let Some(missing) = self.missing(id) else { return };
        let more = missing.min(self.open_slots(id, agent));
        if more > 0 {
            self.fleet.agents.get_mut(agent).expect("the agent was just found").committed += u64::from(more);
            self.give(id, agent, more, actions);
        }
    }

    /// Makes sure that each lane with jobs of a pool with a limit has a place. If a job requires what no agent with
    /// workers of the pool has, one of these agents gives its workers up.
    pub(crate) fn allot_if_many_lanes(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        let Some(pool) = self.pools.get(id).filter(|pool| pool.limit.is_some() && pool.lanes.len() > 1) else { return };
        if pool.closing || self.resumed.contains(&id) {
            return;
        }
        for lane in pool.lanes.clone() {
            if !self.has_jobs(lane) || self.has_place(id, lane, None) {
                continue;
            }
            let fitting = self.fleet.agents.iter().filter(|&(agent, _)| self.fits(lane, agent));
            let fitting = fitting.filter(|&(agent, _)| self.open_slots(id, agent) > 0);
            let least = fitting.map(|(agent, _)| (self.commitment(id, agent), agent)).min();
            let Some((_, agent)) = least else { continue };
            if self.missing(id).is_some() {
                self.fleet.agents.get_mut(agent).expect("the agent was just found").committed += 1;
                self.give(id, agent, 1, actions);
            } else {
                self.give_up_a_place(id, actions);
            }
        }
    }

    /// Stops the pool, once it holds nothing, at the place with fewest workers that no lane depends on. Its workers are
    /// allotted again when the agent has answered.
    fn give_up_a_place(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        let pool = self.pools.get(id).expect("a pool that wants a worker elsewhere is open");
        // Only one at a time. A given up place of a draining agent does not count: it is never told to stop, because
        // its workers are allotted elsewhere as its chunks end.
        let drains = |agent| self.fleet.agents.get(agent).is_some_and(|agent| agent.draining);
        let goes = |place: &Place| match place.stage {
            Stage::Stopping => true,
            Stage::GivenUp => !drains(place.agent),
            _ => false,
        };
        if pool.places.iter().any(|(_, place)| goes(place)) {
            return;
        }
        let is_needed = |agent| {
            let mut lanes = pool.lanes.iter().filter(|&&lane| self.has_jobs(lane) && self.fits(lane, agent));
            lanes.any(|&lane| !self.has_place(id, lane, Some(agent)))
        };
        let places = pool.places.iter().filter(|(_, place)| !place.retired && !is_needed(place.agent));
        let fewest = places.min_by_key(|(id, place)| (place.workers, place.count, id.index()));
        let Some((place, agent)) = fewest.map(|(id, place)| (id, place.agent)) else { return };
        self.give_up_when_empty(id, place);
        self.retire_workers(agent, actions);
    }

    fn has_jobs(&self, lane: LaneId) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.open_jobs > 0)
    }

    fn fits(&self, lane: LaneId, agent: AgentId) -> bool {
        let lane = self.lanes.get(lane).expect("the pool's lane exists");
        self.fleet.agents.get(agent).is_some_and(|agent| agent.labels.include(&lane.require))
    }

    /// Whether the lane has a place at an agent other than `except`.
    fn has_place(&self, pool: PoolId, lane: LaneId, except: Option<AgentId>) -> bool {
        let places = self.pools.get(pool).expect("a lane's pool is open").places.iter();
        let mut usable = places.filter(|(_, place)| !place.retired && Some(place.agent) != except);
        usable.any(|(_, place)| self.fits(lane, place.agent))
    }

    /// Takes workers back from a place until it has `left`.
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

    /// Takes workers back from places of the agent that get nothing more. Call this when something that it holds has
    /// ended.
    ///
    /// A leaving agent needs only as many workers as may still run something there. The others are allotted elsewhere
    /// at once, and the rest when it has finished, so that there are never more than the limit. A place that is being
    /// given up is kept until it holds nothing.
    #[inline]
    pub(crate) fn retire_workers(&mut self, agent: AgentId, actions: &mut Vec<Action>) {
        if self.fleet.agents.get(agent).is_some_and(|agent| agent.draining || agent.given_up > 0) {
            self.retire_workers_now(agent, actions);
        }
    }

    #[cold]
    fn retire_workers_now(&mut self, agent: AgentId, actions: &mut Vec<Action>) {
        let Some(state) = self.fleet.agents.get(agent) else { return };
        let draining = state.draining;
        for (id, place) in state.places.clone() {
            let pool = self.pools.get_mut(id).expect("a place's pool is open");
            if pool.closing {
                // It stops everywhere anyway.
                continue;
            }
            let state = pool.places.get_mut(place).expect("the agent's place exists");
            if state.stage == Stage::GivenUp && state.count == 0 && !draining {
                state.stage = Stage::Stopping;
                self.fleet.agents.get_mut(agent).expect("the agent was just found").given_up -= 1;
                actions.push(Action::StopPool { agent, pool: id });
            }
            // Each chunk keeps at least one worker, so usually there is nothing to count.
            else if draining && pool.limit.is_some() && state.count < state.workers {
                let workers = state.workers;
                let busy = self.may_keep_busy(agent, place, id);
                if busy < workers.into() {
                    self.free(id, place, busy as u32);
                    self.allot(id, actions);
                }
            }
        }
    }

    /// Returns how many workers the chunks held at a place may keep busy.
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

    /// Returns how many workers of a pool with a limit are allotted nowhere; `None`: there is nothing to allot.
    fn missing(&self, id: PoolId) -> Option<u32> {
        let pool = self.pools.get(id).filter(|pool| !pool.closing)?;
        Some(pool.limit?.get() - pool.allotted).filter(|&missing| missing > 0)
    }

    /// The key by which workers of the pool are allotted: whether they would die there, and the committed part of the
    /// slots.
    fn commitment(&self, id: PoolId, agent: AgentId) -> (bool, u64) {
        let unhealthy_at = self.pools.get(id).is_some_and(|pool| pool.unhealthy_at.contains(&agent));
        let (unhealthy, part) = self.fleet.agents.get(agent).expect("an agent with open slots exists").commitment();
        (unhealthy || unhealthy_at, part)
    }

    /// Returns how many more workers of the pool the agent may have.
    pub(crate) fn open_slots(&self, id: PoolId, agent: AgentId) -> u32 {
        let (Some(pool), Some(state)) = (self.pools.get(id), self.fleet.agents.get(agent)) else { return 0 };
        if state.draining || !state.labels.include(&pool.require) {
            return 0;
        }
        match pool.places.id_at(agent).and_then(|place| pool.places.get(place)) {
            Some(place) if place.retired => 0,
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
