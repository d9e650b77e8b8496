//! Invariants that hold after every event.

use std::collections::HashMap;

use crate::chunk::Hold;
use crate::core::Core;
use crate::ids::{AgentId, ChunkId, Id, JobId, PlaceId, PoolId};
use crate::lane::LaneOrder;
use crate::pool::{Pool, Stage};

impl Core {
    /// Checks that all parts of the state agree. Runs after every event in debug builds with the feature `checks`,
    /// which farpool's own tests enable. O(everything).
    ///
    /// # Panics
    /// If they do not agree, which is a bug in farpool.
    pub fn check(&self) {
        self.fleet.check();
        self.check_agents();
        self.check_jobs();
        self.check_places();
        self.check_lanes();
        self.reaches.check();
        self.check_reaches();
        self.check_shares();
    }

    /// Every chunk is in exactly one list, the right one, and every agent's counts are right.
    fn check_agents(&self) {
        let mut listed = 0;
        let mut promised: HashMap<AgentId, u32> = HashMap::new();
        for (id, agent) in self.fleet.agents.iter() {
            let held: Vec<ChunkId> = agent.held.iter(&self.chunks).collect();
            let (mut retracting, mut bytes, mut movable) = (0, 0, false);
            for &chunk in &held {
                let chunk = self.chunks.get(chunk).expect("a listed chunk exists");
                assert_eq!(chunk.agent, id, "a chunk is listed at another agent");
                bytes += chunk.item_bytes * chunk.done.left();
                movable |= chunk.hold == Hold::Assigned;
                if let Hold::Retracting { to } = chunk.hold {
                    retracting += 1;
                    *promised.entry(to).or_default() += 1;
                }
            }
            assert_eq!((held.len(), retracting, bytes), (agent.count as usize, agent.retracting, agent.bytes));
            assert_eq!(agent.held.any_movable(), movable);
            listed += held.len();
            let places = agent.places.iter().filter_map(|&(pool, place)| self.pools.get(pool)?.places.get(place));
            assert_eq!(agent.given_up as usize, places.filter(|place| place.stage == Stage::GivenUp).count());
            for (at, &(pool, place)) in agent.places.iter().enumerate() {
                let place = self.pools.get(pool).and_then(|pool| pool.places.get(place)).expect("the place exists");
                assert_eq!((place.agent, place.listed_at as usize), (id, at), "a place is listed elsewhere");
            }
        }
        assert_eq!(listed, self.chunks.len(), "a chunk is in no list or in two");
        for (id, agent) in self.fleet.agents.iter() {
            assert_eq!(agent.promised, promised.get(&id).copied().unwrap_or(0), "{id:?} waits for something else");
        }
    }

    /// Every item that arrived is in exactly one state: it has its outcome, is queued, or is at an agent.
    fn check_jobs(&self) {
        let (mut at_agents, twice) = (HashMap::<JobId, u64>::new(), self.check_twins());
        for (_, chunk) in self.chunks.iter() {
            let left: u64 = chunk.done.holes(chunk.run).map(|hole| hole.count).sum();
            assert!(left > 0 && left == chunk.done.left(), "a finished chunk still exists, or its count is wrong");
            assert!(self.jobs.get(chunk.job).is_some(), "a chunk of a job that has finished");
            *at_agents.entry(chunk.job).or_default() += left;
        }
        for (id, job) in self.jobs.iter() {
            job.queue.check();
            let [at_agents, twice] = [&at_agents, &twice].map(|counts| counts.get(&id).copied().unwrap_or(0));
            let at_agents = at_agents - twice;
            assert_eq!(job.outcomes + job.queue.items() + at_agents, job.arrived, "{id:?} has lost or doubled items");
            assert!(!job.is_over(), "{id:?} has finished and still exists");
        }
    }

    /// Each place counts its chunks right, holds only its own, and is allotted no more than exists.
    fn check_places(&self) {
        let mut held: HashMap<(PoolId, PlaceId), (u32, u32)> = HashMap::new();
        let mut promised: HashMap<(PoolId, AgentId), u32> = HashMap::new();
        for (_, chunk) in self.chunks.iter() {
            let pool = self.jobs.get(chunk.job).expect("a chunk's job is open").pool;
            let counts = held.entry((pool, chunk.place)).or_default();
            counts.0 += 1;
            if let Hold::Retracting { to } = chunk.hold {
                counts.1 += 1;
                *promised.entry((pool, to)).or_default() += 1;
            }
        }
        let mut committed: HashMap<AgentId, u64> = HashMap::new();
        for (id, pool) in self.pools.iter() {
            let (mut allotted, mut offered) = (0, 0);
            for (place_id, place) in pool.places.iter() {
                let agent = self.fleet.agents.get(place.agent).expect("the place's agent exists");
                assert_eq!(pool.places.id_at(place.agent), Some(place_id));
                assert!(agent.labels.include(&pool.require), "{id:?} is at an agent that may not run it");
                let counts = held.remove(&(id, place_id)).unwrap_or_default();
                assert_eq!(counts, (place.count, place.retracting), "{id:?} miscounts at {:?}", place.agent);
                assert_eq!(place.promised, promised.get(&(id, place.agent)).copied().unwrap_or(0));
                let usable = matches!(place.stage, Stage::Starting | Stage::Ready);
                assert_eq!(place.retired, agent.draining || !usable);
                offered += if place.retired { 0 } else { u64::from(place.workers) };
                if pool.limit.is_some() {
                    assert!(place.workers <= agent.slots() && (place.workers > 0 || place.retired));
                    allotted += place.workers;
                    *committed.entry(place.agent).or_default() += u64::from(place.workers);
                }
            }
            assert_eq!((pool.allotted, pool.offered), (allotted, offered), "{id:?} is allotted something else");
            self.check_limit(id, pool);
        }
        assert!(held.is_empty(), "chunks are at places that do not exist");
        for (id, agent) in self.fleet.agents.iter() {
            assert_eq!(agent.committed, committed.get(&id).copied().unwrap_or(0));
        }
    }

    /// The limit is kept, and used up as far as there are slots.
    fn check_limit(&self, id: PoolId, pool: &Pool) {
        let Some(limit) = pool.limit else { return };
        assert!(pool.allotted <= limit.get(), "{id:?} has more workers than it may have");
        let may_have_more = |(agent, state): (AgentId, &crate::agent::Agent)| {
            let place = pool.places.id_at(agent).and_then(|place| pool.places.get(place));
            let takes_more = place.is_none_or(|place| !place.retired && place.workers < state.slots());
            takes_more && !state.draining && state.labels.include(&pool.require)
        };
        assert!(pool.allotted == limit.get() || !self.fleet.agents.iter().any(may_have_more), "{id:?} could have more");
    }

    /// Exactly the jobs with something to run are in the order, at the right position, and so are their lanes.
    fn check_lanes(&self) {
        for (id, pool) in self.pools.iter() {
            let mut ready = 0;
            for &lane_id in &pool.lanes {
                let lane = self.lanes.get(lane_id).expect("the pool's lane exists");
                assert_eq!(lane.pool, id);
                lane.ready.check(&self.turns);
                let job = lane.ready.first().filter(|_| !pool.paused);
                let turn = job.map(|(_, job)| LaneOrder { pool_used: pool.used, job });
                assert_eq!(lane.turn, turn);
                for reach in std::iter::once(lane.own).chain(lane.common) {
                    let turn = turn.filter(|_| self.reaches.len(reach) > 0 || Some(reach) == lane.common);
                    assert_eq!(self.reaches.turn(reach, lane_id), turn, "{lane_id:?} is misplaced");
                }
                ready += u32::from(turn.is_some());
            }
            assert_eq!(pool.ready_lanes, ready);
        }
        assert_eq!(self.lanes.len(), self.pools.iter().map(|(_, pool)| pool.lanes.len()).sum::<usize>());
        let mut jobs: HashMap<_, u32> = HashMap::new();
        for (id, job) in self.jobs.iter() {
            *jobs.entry(job.lane).or_default() += 1;
            let lane = self.lanes.get(job.lane).expect("the job's lane exists");
            let turn = job.queue.next(job.policy.chunksize).map(|_| (job.policy.priority, job.used));
            let found = lane.ready.key(id.index(), &self.turns).map(|turn| (turn.priority.0, turn.used));
            assert_eq!(found, turn, "{id:?} is misplaced");
        }
        for (id, lane) in self.lanes.iter() {
            assert_eq!(lane.open_jobs, jobs.get(&id).copied().unwrap_or(0));
        }
    }

    /// Each lane can run on exactly the right agents, and their keys are right unless they are marked as outdated.
    fn check_reaches(&self) {
        for (lane_id, lane) in self.lanes.iter() {
            let pool = self.pools.get(lane.pool).expect("a lane's pool is open");
            let places = pool.places.iter().filter(|(_, place)| place.stage == Stage::Ready && !place.retired);
            let fits = |agent: &AgentId| {
                self.fleet.agents.get(*agent).is_some_and(|agent| agent.labels.include(&lane.require))
            };
            let mut expected: Vec<_> = places.map(|(_, place)| place.agent).filter(fits).collect();
            let mut found: Vec<_> = self.reaches.agents(lane.own).collect();
            found.extend(lane.common.into_iter().flat_map(|common| self.reaches.agents(common)));
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "{lane_id:?} reaches something else");
        }
        for (id, reach) in self.reaches.all.iter() {
            let pool = reach.owner.and_then(|lane| self.lanes.get(lane)).and_then(|lane| self.pools.get(lane.pool));
            let limited = pool.filter(|pool| pool.limit.is_some());
            let mut slots = 0;
            for agent_id in self.reaches.agents(id) {
                let agent = self.fleet.agents.get(agent_id).expect("an agent in a reach exists");
                let place = limited.and_then(|pool| pool.places.get(pool.places.id_at(agent_id)?));
                slots += u64::from(place.map_or(agent.slots(), |place| place.workers));
                let keys = place.map_or_else(|| agent.keys(), |place| place.keys(agent));
                self.reaches.check_member(id, agent_id, &agent.reaches, keys);
            }
            assert_eq!(reach.slots, slots);
        }
    }
}
