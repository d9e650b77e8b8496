//! Opens and closes pools, adds and removes agents, and with them the places where pools run.
//!
//! Nothing is handed out at a place before its agent has answered that the pool runs there. An agent that is draining,
//! or unfit for a pool, keeps its place until it has left, but nothing more is handed out there.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use crate::action::Action;
use crate::chunk::{Chunk, Hold};
use crate::core::Core;
use crate::heap::Heap;
use crate::ids::{AgentId, ChunkId, JobId, LaneId, PlaceId, PoolId};
use crate::labels::Labels;
use crate::lane::{Clocks, Lane};
use crate::pool::{Place, Places, Pool, Stage};

/// How many lanes without open jobs a pool keeps for later jobs that require the same.
const MOST_LANES_KEPT: usize = 32;

impl Core {
    pub(crate) fn open_pool(
        &mut self,
        id: PoolId,
        limit: Option<NonZeroU32>,
        weight: u32,
        require: Labels,
        actions: &mut Vec<Action>,
        held: &[(AgentId, u32)],
    ) {
        assert!(weight > 0, "a pool without weight");
        let pool = Pool {
            require,
            limit,
            weight,
            paused: false,
            closing: false,
            used: 0,
            fresh: true,
            ready_lanes: 0,
            lanes: Vec::new(),
            places: Places::default(),
            unhealthy_at: BTreeSet::new(),
            allotted: 0,
            offered: 0,
        };
        self.pools.put(id, pool);
        self.open_lane(id, &Labels::default());
        for &(agent, workers) in held {
            self.start_where_held(id, agent, workers, actions);
        }
        if !held.is_empty() {
            self.resumed.push(id);
        }
        if limit.is_some() {
            self.allot(id, actions);
            return;
        }
        let agents: Vec<AgentId> = self.fleet.agents.iter().map(|(id, _)| id).collect();
        for agent in agents {
            self.start_without_limit(id, agent, actions);
        }
    }

    pub(crate) fn pause_pool(&mut self, id: PoolId, paused: bool) {
        self.pools.get_mut(id).expect("the paused pool is open").paused = paused;
        self.pool_changed(id);
        // Chunks were not taken back during the pause.
        let pool = self.pools.get(id).expect("the pool was just found");
        for (_, place) in pool.places.iter().filter(|(_, place)| place.count > 0) {
            self.fleet.change(place.agent, &mut self.reaches, |_| {});
        }
        for lane in pool.lanes.iter().filter_map(|&lane| self.lanes.get(lane)) {
            std::iter::once(lane.own).chain(lane.common).for_each(|reach| self.reaches.look(reach));
        }
    }

    pub(crate) fn close_pool(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        self.pools.get_mut(id).expect("the closed pool was open").closing = true;
        let left: Vec<JobId> = self.jobs.iter().filter(|(_, job)| job.pool == id).map(|(id, _)| id).collect();
        for job in left {
            self.cancel_job(job, actions);
        }
        let pool = self.pools.get(id).expect("the closed pool was open");
        let (lanes, places) = (pool.lanes.clone(), pool.places.iter().map(|(id, _)| id).collect::<Vec<_>>());
        for lane in lanes {
            self.close_lane(lane);
        }
        for place in places {
            self.remove_place(id, place);
        }
        self.pools.take(id);
    }

    pub(crate) fn join_agent(&mut self, id: AgentId, slots: u32, labels: Labels, actions: &mut Vec<Action>) {
        self.fleet.join(id, slots, labels);
        let pools: Vec<PoolId> = self.pools.iter().map(|(id, _)| id).collect();
        for pool in pools {
            if self.pools.get(pool).is_some_and(|pool| pool.limit.is_some()) {
                self.allot_at(pool, id, actions);
                self.allot_if_many_lanes(pool, actions);
            } else {
                self.start_without_limit(pool, id, actions);
            }
        }
        self.move_from_unhealthy(actions);
    }

    pub(crate) fn place_started(&mut self, pool: PoolId, agent: AgentId) {
        let stage = self.place_mut(pool, agent).map(|(_, place)| place.stage);
        let Some(stage @ (Stage::Starting | Stage::GivenUp)) = stage else {
            self.stale_reports += 1;
            return;
        };
        self.pools.get_mut(pool).expect("a place's pool is open").unhealthy_at.remove(&agent);
        // If its workers died there, it is given up already.
        if stage == Stage::Starting {
            self.place_mut(pool, agent).expect("the place was just found").1.stage = Stage::Ready;
            if !self.fleet.agents.get(agent).is_some_and(|agent| agent.draining) {
                self.enter_reaches(pool, agent);
            }
        }
    }

    pub(crate) fn place_unfit(&mut self, pool: PoolId, agent: AgentId, actions: &mut Vec<Action>) {
        let Some((id, place)) = self.place_mut(pool, agent).filter(|(_, place)| place.stage != Stage::Unfit) else {
            self.stale_reports += 1;
            return;
        };
        let was_given_up = std::mem::replace(&mut place.stage, Stage::Unfit) == Stage::GivenUp;
        self.fleet.agents.get_mut(agent).expect("the place's agent exists").given_up -= u32::from(was_given_up);
        let held = self.chunks_of(agent, |chunk| chunk.place == id && self.pool_of(chunk.job) == Some(pool));
        for chunk in held {
            let chunk = self.drop_chunk(chunk);
            self.requeue(&chunk);
        }
        self.retire(pool, id);
        self.free(pool, id, 0);
        self.allot(pool, actions);
    }

    pub(crate) fn place_stopped(&mut self, pool: PoolId, agent: AgentId, actions: &mut Vec<Action>) {
        let Some((id, _)) = self.place_mut(pool, agent).filter(|(_, place)| place.stage == Stage::Stopping) else {
            self.stale_reports += 1;
            return;
        };
        self.remove_place(pool, id);
        // With the pool, the agent forgets its jobs: if the pool starts there again, so must they.
        for (_, job) in self.jobs.iter_mut().filter(|(_, job)| job.pool == pool) {
            job.agents.remove(agent);
        }
        self.allot(pool, actions);
    }

    pub(crate) fn drain_agent(&mut self, id: AgentId, actions: &mut Vec<Action>) {
        let drained = self.fleet.change(id, &mut self.reaches, |agent| std::mem::replace(&mut agent.draining, true));
        if drained.expect("the draining agent exists") {
            return;
        }
        let places = self.fleet.agents.get(id).expect("the agent was just found").places.clone();
        self.leave_common(id);
        for (pool, place) in places {
            self.retire(pool, place);
        }
        self.share_anew();
        self.retire_workers(id, actions);
    }

    pub(crate) fn lose_agent(&mut self, id: AgentId, actions: &mut Vec<Action>) {
        assert!(self.fleet.agents.get(id).is_some(), "lost agent {id:?} does not exist");
        let held: Vec<ChunkId> = self.chunks_of(id, |_| true);
        let mut touched = Vec::new();
        for chunk in held {
            let chunk = self.drop_chunk(chunk);
            self.recover(&chunk, actions);
            touched.push(chunk.job);
        }
        for (_, job) in self.jobs.iter_mut() {
            job.agents.remove(id);
        }
        for (_, pool) in self.pools.iter_mut() {
            pool.unhealthy_at.remove(&id);
        }
        let places = self.fleet.agents.get(id).expect("the agent was just found").places.clone();
        self.leave_common(id);
        for &(pool, place) in &places {
            self.retire(pool, place);
            self.remove_place(pool, place);
        }
        self.fleet.leave(id);
        self.share_anew();
        for (pool, _) in places {
            self.allot(pool, actions);
        }
        // A job can be over only now, when all the agent's chunks are accounted for.
        for job in touched {
            self.finish_if_over(job, actions);
        }
    }

    /// Returns the lane of a pool's jobs that require these labels.
    pub(crate) fn lane_for(&mut self, pool: PoolId, require: &Labels) -> LaneId {
        let state = self.pools.get(pool).unwrap_or_else(|| panic!("a job of {pool:?}, which is not open"));
        if require.is_empty() {
            return state.lanes[0];
        }
        let require = state.require.and(require);
        let known = state.lanes.iter().find(|&&lane| self.lanes.get(lane).is_some_and(|lane| lane.require == require));
        if let Some(&lane) = known {
            return lane;
        }
        if state.lanes.len() > MOST_LANES_KEPT {
            let unused = |lane: &LaneId| self.lanes.get(*lane).is_some_and(|lane| lane.open_jobs == 0);
            let unused: Vec<LaneId> = state.lanes[1..].iter().copied().filter(unused).collect();
            for lane in unused {
                self.close_lane(lane);
                self.pools.get_mut(pool).expect("the pool was just found").lanes.retain(|&other| other != lane);
            }
        }
        self.open_lane(pool, &require)
    }

    fn open_lane(&mut self, id: PoolId, extra: &Labels) -> LaneId {
        let own = self.reaches.open(None);
        let pool = self.pools.get_mut(id).expect("a lane's pool is open");
        let lane = Lane {
            pool: id,
            require: pool.require.and(extra),
            ready: Heap::default(),
            turn: None,
            open_jobs: 0,
            clocks: Clocks::default(),
            own,
            common: None,
        };
        let lane = self.lanes.insert(lane);
        self.reaches.all.get_mut(own).expect("the reach was just made").owner = Some(lane);
        pool.lanes.push(lane);
        let ready = pool.places.iter().filter(|(_, place)| place.stage == Stage::Ready && !place.retired);
        let ready: Vec<AgentId> = ready.map(|(_, place)| place.agent).collect();
        for agent in ready {
            self.enter_reach(lane, agent);
        }
        lane
    }

    /// Closes a lane without open jobs.
    fn close_lane(&mut self, id: LaneId) {
        self.stop_sharing(id, false);
        let own = self.lanes.get(id).expect("the closed lane exists").own;
        let agents: Vec<AgentId> = self.reaches.agents(own).collect();
        for agent in agents {
            self.leave_reach(id, agent);
        }
        self.reaches.close(own);
        self.lanes.remove(id);
    }

    /// Starts a pool at an agent that already runs it, even if that is leaving: it finishes what it holds.
    fn start_where_held(&mut self, id: PoolId, agent: AgentId, workers: u32, actions: &mut Vec<Action>) {
        let pool = self.pools.get_mut(id).expect("a pool that starts is open");
        let state = self.fleet.agents.get_mut(agent).filter(|state| state.labels.include(&pool.require));
        let Some(state) = state.filter(|_| pool.places.id_at(agent).is_none()) else { return };
        let slots = state.slots();
        let given = pool.limit.map(|limit| {
            let asked = if workers == 0 { slots } else { workers.min(slots) };
            asked.min(limit.get() - pool.allotted)
        });
        match given {
            Some(0) => return,
            Some(given) => {
                pool.allotted += given;
                state.committed += u64::from(given);
            }
            None => {}
        }
        let leaves = state.draining;
        let place = self.add_place(id, agent, given.unwrap_or(slots));
        actions.push(Action::StartPool { agent, pool: id, workers: given.and_then(NonZeroU32::new) });
        if leaves {
            self.retire(id, place);
        }
    }

    /// It is known now what the places of the pool hold, so workers may move to where they are needed.
    pub(crate) fn move_resumed_workers(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        let Some(pool) = self.pools.get(id) else { return };
        let agents: Vec<AgentId> = pool.places.iter().map(|(_, place)| place.agent).collect();
        agents.into_iter().for_each(|agent| self.retire_workers(agent, actions));
        self.allot_if_many_lanes(id, actions);
    }

    /// Starts a pool without a limit at an agent, if it may run there and does not yet.
    fn start_without_limit(&mut self, id: PoolId, agent: AgentId, actions: &mut Vec<Action>) {
        let Some(state) = self.fleet.agents.get(agent).filter(|state| !state.draining) else { return };
        let pool = self.pools.get(id).expect("a pool that starts is open");
        if pool.places.id_at(agent).is_none() && state.labels.include(&pool.require) {
            self.add_place(id, agent, state.slots());
            actions.push(Action::StartPool { agent, pool: id, workers: None });
        }
    }

    /// Makes the agent a place of the pool, which is being started there.
    pub(crate) fn add_place(&mut self, id: PoolId, agent: AgentId, workers: u32) -> PlaceId {
        let promised = self.promised_to(id, agent);
        let pool = self.pools.get_mut(id).expect("a pool that starts is open");
        let places = &mut self.fleet.agents.get_mut(agent).expect("the place's agent exists").places;
        let listed_at = places.len() as u32;
        let stage = Stage::Starting;
        let place = Place { agent, stage, retired: false, workers, count: 0, retracting: 0, promised, listed_at };
        let place = pool.places.put(place);
        places.push((id, place));
        pool.offered += u64::from(workers);
        place
    }

    /// Returns how many chunks of the pool other agents were asked to give back for this one. There are some if it had
    /// a place before.
    fn promised_to(&self, id: PoolId, agent: AgentId) -> u32 {
        if self.fleet.agents.get(agent).is_none_or(|agent| agent.promised == 0) {
            return 0;
        }
        let is_for = |chunk: &Chunk| matches!(chunk.hold, Hold::Retracting { to } if to == agent);
        let promised = self.chunks.iter().filter(|(_, chunk)| is_for(chunk) && self.pool_of(chunk.job) == Some(id));
        u32::try_from(promised.count()).unwrap_or(u32::MAX)
    }

    /// Stops handing out at the place.
    pub(crate) fn retire(&mut self, id: PoolId, place: PlaceId) {
        let pool = self.pools.get_mut(id).expect("a place's pool is open");
        let Some(state) = pool.places.get_mut(place) else { return };
        let agent = state.agent;
        if std::mem::replace(&mut state.retired, true) {
            return;
        }
        pool.offered -= u64::from(state.workers);
        self.leave_reaches(id, agent);
    }

    pub(crate) fn leave_reaches(&mut self, pool: PoolId, agent: AgentId) {
        for lane in self.pools.get(pool).expect("a place's pool is open").lanes.clone() {
            self.leave_reach(lane, agent);
        }
    }

    /// Removes a place that holds nothing.
    fn remove_place(&mut self, id: PoolId, place: PlaceId) {
        self.free(id, place, 0);
        let pool = self.pools.get_mut(id).expect("a place's pool is open");
        let place = pool.places.take(place).expect("the removed place exists");
        debug_assert_eq!(place.count, 0);
        let agent = self.fleet.agents.get_mut(place.agent).expect("the place's agent exists");
        agent.given_up -= u32::from(place.stage == Stage::GivenUp);
        let places = &mut agent.places;
        places.swap_remove(place.listed_at as usize);
        if let Some(&(moved, at)) = places.get(place.listed_at as usize) {
            let moved = self.pools.get_mut(moved).and_then(|pool| pool.places.get_mut(at));
            moved.expect("the agent's place exists").listed_at = place.listed_at;
        }
    }

    fn enter_reaches(&mut self, pool: PoolId, agent: AgentId) {
        for lane in self.pools.get(pool).expect("a place's pool is open").lanes.clone() {
            self.enter_reach(lane, agent);
        }
    }

    /// A place got more workers.
    pub(crate) fn widen(&mut self, id: PoolId, agent: AgentId, more: u32) {
        let pool = self.pools.get(id).expect("a place's pool is open");
        let Some(place) = pool.places.id_at(agent).and_then(|place| pool.places.get(place)) else { return };
        let Some(state) = self.fleet.agents.get(agent).filter(|_| place.stage == Stage::Ready) else { return };
        for lane in pool.lanes.iter().filter_map(|&lane| self.lanes.get(lane)) {
            if state.labels.include(&lane.require) {
                let own = self.reaches.all.get_mut(lane.own).expect("the lane's reach exists");
                own.slots += u64::from(more);
                self.reaches.look(lane.own);
            }
        }
        self.fleet.change(agent, &mut self.reaches, |_| {});
    }

    pub(crate) fn place_mut(&mut self, pool: PoolId, agent: AgentId) -> Option<(PlaceId, &mut Place)> {
        let places = &mut self.pools.get_mut(pool)?.places;
        let id = places.id_at(agent)?;
        Some((id, places.get_mut(id)?))
    }

    fn pool_of(&self, job: JobId) -> Option<PoolId> {
        self.jobs.get(job).map(|job| job.pool)
    }
}
