//! Decides which lanes share their agents.
//!
//! Hundreds of pools may all run on the same thousands of agents. If each kept its own order of all agents, each chunk
//! would have to be noted in hundreds of them. So lanes that require the same labels share a reach, whose agents are
//! ready for every one of its lanes. While one of the pools is still being started at an agent, that agent is in the
//! own reaches of the other lanes instead. A lane keeps to its own reach if some of those agents are not ready for it
//! or cannot run it. Lanes of pools with a limit always do, as they use only a few agents.

use std::collections::HashMap;

use crate::core::Core;
use crate::ids::{AgentId, LaneId, ReachId};
use crate::pool::Stage;
use crate::shares::Share;

impl Core {
    /// The lane's chunks may be handed out to the agent if it has the required labels.
    pub(crate) fn enter_reach(&mut self, id: LaneId, agent: AgentId) {
        let lane = self.lanes.get(id).expect("the pool's lane exists");
        let state = self.fleet.agents.get(agent).expect("an agent that runs a pool exists");
        if !state.labels.include(&lane.require) {
            return;
        }
        let common = lane.common;
        if common.is_some_and(|common| state.reaches.contain(common)) {
            // The lane has just joined the shared reach, and this agent is a member of it already.
            return;
        }
        self.join_own(id, agent);
        match common {
            Some(common) => {
                let share = self.shares.all.get_mut(&common).expect("the lane's shared reach is known");
                *share.waiting.entry(agent).or_default() += 1;
                self.share_agent(common, agent);
            }
            None => self.try_to_share(id),
        }
    }

    /// Stops handing out the lane's chunks to the agent.
    pub(crate) fn leave_reach(&mut self, id: LaneId, agent: AgentId) {
        let common = self.lanes.get(id).expect("the pool's lane exists").common;
        let Some(common) = common else {
            self.leave_own(id, agent);
            return;
        };
        if self.is_in(common, agent) {
            self.stop_sharing(id, true);
            self.leave_own(id, agent);
        } else if self.leave_own(id, agent) {
            self.stop_waiting(common, agent);
        }
    }

    /// Removes the agent from all shared reaches: it is leaving, and its places with it.
    pub(crate) fn leave_common(&mut self, agent: AgentId) {
        let commons: Vec<ReachId> = self.shares.all.keys().copied().collect();
        for common in commons {
            if let Some(state) = self.fleet.agents.get_mut(agent)
                && state.reaches.contain(common)
            {
                let slots = state.slots();
                self.reaches.leave(common, slots, &mut state.reaches);
            }
        }
    }

    fn is_in(&self, common: ReachId, agent: AgentId) -> bool {
        self.fleet.agents.get(agent).is_some_and(|agent| agent.reaches.contain(common))
    }

    /// Lets lanes share that could not because of an agent that has left.
    pub(crate) fn share_anew(&mut self) {
        let alone: Vec<LaneId> =
            self.lanes.iter().filter(|(_, lane)| lane.common.is_none()).map(|(id, _)| id).collect();
        alone.into_iter().for_each(|lane| self.try_to_share(lane));
    }

    /// Moves the lane to its own reach. `keep_agents`: the agents of the shared reach move along.
    pub(crate) fn stop_sharing(&mut self, id: LaneId, keep_agents: bool) {
        let lane = self.lanes.get_mut(id).expect("the sharing lane exists");
        let Some(common) = lane.common.take() else { return };
        let own = lane.own;
        self.reaches.set_lane(common, id, None);
        self.reaches.all.get_mut(own).expect("the lane's reach exists").partner = None;
        for agent in self.reaches.agents(own).collect::<Vec<_>>() {
            self.stop_waiting(common, agent);
        }
        let shared: Vec<AgentId> = self.reaches.agents(common).collect();
        if keep_agents {
            shared.iter().for_each(|&agent| self.join_own(id, agent));
        }
        let share = self.shares.all.get_mut(&common).expect("the lane's shared reach is known");
        share.lanes.retain(|&other| other != id);
        if share.lanes.is_empty() {
            for agent in shared {
                let state = self.fleet.agents.get_mut(agent).expect("an agent in a reach exists");
                let slots = state.slots();
                self.reaches.leave(common, slots, &mut state.reaches);
            }
            self.reaches.close(common);
            self.shares.all.remove(&common);
            self.shares.by_require.retain(|_, reach| *reach != common);
            return;
        }
        // Some agents may be ready for all remaining lanes.
        let waiting: Vec<AgentId> = share.waiting.keys().copied().collect();
        waiting.into_iter().for_each(|agent| self.share_agent(common, agent));
    }

    /// Lets the lane share with those that require the same labels, if all agents of their reach are ready for it.
    fn try_to_share(&mut self, id: LaneId) {
        let lane = self.lanes.get(id).expect("the lane that may share exists");
        let pool = self.pools.get(lane.pool).expect("a lane's pool is open");
        let own = lane.own;
        if pool.limit.is_some() || self.reaches.len(own) == 0 {
            return;
        }
        let known = self.shares.by_require.get(&lane.require).copied();
        if let Some(common) = known {
            let ready = |agent| {
                let place = pool.places.id_at(agent).and_then(|place| pool.places.get(place));
                place.is_some_and(|place| place.stage == Stage::Ready && !place.retired)
            };
            if self.reaches.len(own) < self.reaches.len(common) || !self.reaches.agents(common).all(ready) {
                return;
            }
        }
        let require = lane.require.clone();
        let common = known.unwrap_or_else(|| {
            let common = self.reaches.open(None);
            self.shares.by_require.insert(require, common);
            self.shares.all.insert(common, Share::default());
            common
        });
        for agent in self.reaches.agents(common).collect::<Vec<_>>() {
            self.leave_own(id, agent);
        }
        self.lanes.get_mut(id).expect("the lane was just found").common = Some(common);
        self.reaches.all.get_mut(own).expect("the lane's reach exists").partner = Some(common);
        let turn = self.lanes.get(id).expect("the lane was just found").turn;
        self.reaches.set_lane(common, id, turn);
        let share = self.shares.all.get_mut(&common).expect("the share was just found or made");
        share.lanes.push(id);
        let left: Vec<AgentId> = self.reaches.agents(own).collect();
        left.iter().for_each(|&agent| *share.waiting.entry(agent).or_default() += 1);
        left.into_iter().for_each(|agent| self.share_agent(common, agent));
    }

    /// Moves an agent that is ready for all sharing lanes into the shared reach.
    fn share_agent(&mut self, common: ReachId, agent: AgentId) {
        let share = self.shares.all.get_mut(&common).expect("the lane's shared reach is known");
        if share.waiting.get(&agent) != Some(&share.lanes.len()) {
            return;
        }
        share.waiting.remove(&agent);
        for lane in share.lanes.clone() {
            self.leave_own(lane, agent);
        }
        let state = self.fleet.agents.get_mut(agent).expect("an agent in a reach exists");
        let slots = state.slots();
        self.reaches.join(common, agent, slots, &mut state.reaches);
    }

    fn stop_waiting(&mut self, common: ReachId, agent: AgentId) {
        let share = self.shares.all.get_mut(&common).expect("the lane's shared reach is known");
        let count = share.waiting.get_mut(&agent).expect("an agent in an own reach of a lane that shares waits");
        *count -= 1;
        if *count == 0 {
            share.waiting.remove(&agent);
        }
    }

    fn join_own(&mut self, id: LaneId, agent: AgentId) {
        let lane = self.lanes.get(id).expect("the pool's lane exists");
        let workers = self.workers_at(lane.pool, agent);
        let state = self.fleet.agents.get_mut(agent).expect("an agent that runs a pool exists");
        self.reaches.join(lane.own, agent, workers, &mut state.reaches);
        if self.reaches.len(lane.own) == 1 {
            self.reaches.set_lane(lane.own, id, lane.turn);
        }
    }

    /// Returns false if it was not a member.
    fn leave_own(&mut self, id: LaneId, agent: AgentId) -> bool {
        let lane = self.lanes.get(id).expect("the pool's lane exists");
        let workers = self.workers_at(lane.pool, agent);
        let state = self.fleet.agents.get_mut(agent).expect("an agent that runs a pool exists");
        let left = self.reaches.leave(lane.own, workers, &mut state.reaches);
        if left && self.reaches.len(lane.own) == 0 {
            // A reach without agents need not be kept up to date.
            self.reaches.set_lane(lane.own, id, None);
        }
        left
    }

    fn workers_at(&self, pool: crate::ids::PoolId, agent: AgentId) -> u32 {
        let places = &self.pools.get(pool).expect("a lane's pool is open").places;
        let place = places.id_at(agent).and_then(|place| places.get(place));
        place.expect("an agent that runs a pool is a place of it").workers
    }

    /// Checks that lanes share exactly with those that require the same labels, and count the waiting agents right.
    pub(crate) fn check_shares(&self) {
        for (require, common) in &self.shares.by_require {
            let share = &self.shares.all[common];
            assert!(!share.lanes.is_empty(), "no lane shares it");
            let mut waiting: HashMap<AgentId, usize> = HashMap::new();
            for &lane in &share.lanes {
                let lane = self.lanes.get(lane).expect("the sharing lane exists");
                assert_eq!((lane.common, &lane.require), (Some(*common), require));
                assert!(self.pools.get(lane.pool).is_some_and(|pool| pool.limit.is_none()));
                self.reaches.agents(lane.own).for_each(|agent| *waiting.entry(agent).or_default() += 1);
            }
            assert_eq!(share.waiting, waiting);
            assert!(
                waiting.values().all(|&count| count < share.lanes.len()),
                "an agent that is ready for all lanes is not shared"
            );
        }
        assert_eq!(self.shares.all.len(), self.shares.by_require.len());
        let sharing = self.lanes.iter().filter(|(_, lane)| lane.common.is_some()).count();
        assert_eq!(sharing, self.shares.all.values().map(|share| share.lanes.len()).sum::<usize>());
    }
}
