//! Moves workers of pools with a limit away from agents whose workers die before they can serve.
//!
//! Pools without a limit keep their places: they run wherever there is credit, and these agents give none.
//!
//! If only one pool's workers die, only that pool is held back: it counts as not started there, and moves elsewhere if
//! it has a limit.

use crate::action::Action;
use crate::agent::Agent;
use crate::core::Core;
use crate::ids::{AgentId, PlaceId, PoolId};
use crate::pool::Stage;

impl Core {
    pub(crate) fn set_unhealthy(&mut self, id: AgentId, unhealthy: bool, actions: &mut Vec<Action>) {
        let agent = self.fleet.agents.get_mut(id).expect("the unhealthy agent exists");
        if std::mem::replace(&mut agent.unhealthy, unhealthy) != unhealthy && unhealthy {
            self.move_from(id, actions);
        }
    }

    pub(crate) fn set_place_unhealthy(&mut self, id: PoolId, agent: AgentId, actions: &mut Vec<Action>) {
        let known = self.place_mut(id, agent).map(|(place, state)| (place, state.stage));
        let Some((place, stage @ (Stage::Ready | Stage::GivenUp))) = known else {
            self.stale_reports += 1;
            return;
        };
        self.pools.get_mut(id).expect("a place's pool is open").unhealthy_at.insert(agent);
        // Otherwise it is given up already.
        if stage == Stage::Ready {
            self.place_mut(id, agent).expect("the place was just found").1.stage = Stage::Starting;
            self.leave_reaches(id, agent);
            self.move_place(id, place, agent, actions);
        }
    }

    /// An agent joined: what others cannot run may run there.
    pub(crate) fn move_from_unhealthy(&mut self, actions: &mut Vec<Action>) {
        let unhealthy: Vec<AgentId> =
            self.fleet.agents.iter().filter(|(_, agent)| agent.unhealthy).map(|(id, _)| id).collect();
        for agent in unhealthy {
            self.move_from(agent, actions);
        }
        let unhealthy_at =
            self.pools.iter().flat_map(|(id, pool)| pool.unhealthy_at.iter().map(move |&agent| (id, agent)));
        for (pool, agent) in unhealthy_at.collect::<Vec<_>>() {
            if let Some((place, _)) = self.place_mut(pool, agent) {
                self.move_place(pool, place, agent, actions);
            }
        }
    }

    /// Gives up the agent's places of pools with a limit that have slots elsewhere. Workers that fit nowhere else are
    /// allotted here again.
    fn move_from(&mut self, id: AgentId, actions: &mut Vec<Action>) {
        for (pool, place) in self.fleet.agents.get(id).expect("the agent was just found").places.clone() {
            self.move_place(pool, place, id, actions);
        }
    }

    /// Gives up one place, if its pool has a limit and slots elsewhere.
    fn move_place(&mut self, pool: PoolId, place: PlaceId, agent: AgentId, actions: &mut Vec<Action>) {
        if self.has_slots_elsewhere(pool, place, agent) {
            self.give_up_when_empty(pool, place);
            self.retire_workers(agent, actions);
        }
    }

    fn has_slots_elsewhere(&self, id: PoolId, place: PlaceId, agent: AgentId) -> bool {
        let pool = self.pools.get(id).expect("a place's pool is open");
        let usable = pool.places.get(place).is_some_and(|place| !place.retired);
        let is_unhealthy = |other, state: &Agent| state.unhealthy || pool.unhealthy_at.contains(&other);
        let healthy = self.fleet.agents.iter().filter(|&(other, state)| other != agent && !is_unhealthy(other, state));
        let mut healthy = healthy.map(|(other, _)| other);
        usable && pool.limit.is_some() && !pool.closing && healthy.any(|other| self.open_slots(id, other) > 0)
    }

    /// Marks the pool to be stopped at the place once it holds nothing. Its workers are allotted when the agent has
    /// answered.
    pub(crate) fn give_up_when_empty(&mut self, pool: PoolId, place: PlaceId) {
        self.retire(pool, place);
        let state =
            self.pools.get_mut(pool).and_then(|pool| pool.places.get_mut(place)).expect("the place was just found");
        state.stage = Stage::GivenUp;
        let agent = state.agent;
        self.fleet.agents.get_mut(agent).expect("the place's agent exists").given_up += 1;
    }
}
