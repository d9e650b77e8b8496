//! Weighted fair queueing by slot time, first of pools and then of a pool's jobs.
//!
//! Each pool and each job has used some slot time, and the one that has used least goes next; a pool's time is divided
//! by its weight. A chunk's expected time is charged when it is handed out and corrected when it has been measured. A
//! pool or job that had nothing to run for a while, or is new, starts where those being served stand. So it neither
//! waits for them to catch up nor makes up for its absence.
//!
//! Pools may share some agents and not others. So each agent has a clock: the time that the pool it served last had
//! used. For the same reason, no pool falls behind the clock of an agent that serves it by more than
//! [`MOST_BEHIND_NS`]. The jobs of a lane all run on the same agents, so for jobs the lane has the clocks.

use crate::core::Core;
use crate::ids::{AgentId, Id, JobId, LaneId, PoolId};
use crate::lane::LaneOrder;

/// The most slot time (divided by the weight) that a pool makes up for when the clock of an agent is ahead of it.
const MOST_BEHIND_NS: u64 = 1_000_000_000;

impl Core {
    /// Updates the order after the job's queue changed.
    #[inline]
    pub(crate) fn requeued(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let lane = self.lanes.get_mut(job.lane).expect("the job's lane exists");
        let was_ready = lane.ready.key(id.index(), &self.turns).is_some();
        let is_ready = job.queue.next(job.policy.chunksize).is_some();
        if was_ready == is_ready {
            return;
        }
        if is_ready {
            job.used = job.used.max(lane.clocks.of(job.policy.priority));
        }
        lane.ready.set(id.index(), is_ready.then_some(job.turn()), &mut self.turns);
        let lane = job.lane;
        self.lane_changed(lane);
    }

    /// Charges the job with the slot time that its chunk at this agent is expected to use.
    #[inline]
    pub(crate) fn served(&mut self, id: JobId, agent: AgentId, ns: u64) {
        let job = self.jobs.get_mut(id).expect("the served job is open");
        let lane = self.lanes.get_mut(job.lane).expect("the job's lane exists");
        lane.clocks.serve(job.policy.priority, job.used);
        let pool = self.pools.get_mut(lane.pool).expect("a lane's pool is open");
        let agent = self.fleet.agents.get_mut(agent).expect("the serving agent exists");
        let behind = if std::mem::take(&mut pool.fresh) { 0 } else { MOST_BEHIND_NS };
        pool.used = pool.used.max(agent.clock.saturating_sub(behind));
        agent.clock = agent.clock.max(pool.used);
        job.used = job.used.saturating_add(ns);
        pool.used = pool.used.saturating_add(pool.share_of(ns));
        let is_ready = job.queue.next(job.policy.chunksize).is_some();
        lane.ready.set(id.index(), is_ready.then_some(job.turn()), &mut self.turns);
        let lane = job.lane;
        self.lanes_changed(lane);
    }

    /// The job used less slot time than it was charged.
    pub(crate) fn refund(&mut self, id: JobId, ns: u64) {
        self.correct(id, u64::saturating_sub, ns);
    }

    /// The job used more slot time than it was charged.
    #[inline]
    pub(crate) fn charge_more(&mut self, id: JobId, ns: u64) {
        self.correct(id, u64::saturating_add, ns);
    }

    /// Updates the order after jobs of the lane changed.
    #[inline]
    pub(crate) fn lane_changed(&mut self, id: LaneId) {
        let lane = self.lanes.get_mut(id).expect("the changed lane exists");
        let pool = self.pools.get_mut(lane.pool).expect("a lane's pool is open");
        let turn = match lane.ready.first() {
            Some((_, job)) if !pool.paused => Some(LaneOrder { pool_used: pool.used, job }),
            _ => None,
        };
        let before = std::mem::replace(&mut lane.turn, turn);
        if before == turn {
            return;
        }
        if before.is_some() != turn.is_some() {
            pool.ready_lanes = if turn.is_some() { pool.ready_lanes + 1 } else { pool.ready_lanes - 1 };
            pool.fresh |= turn.is_some() && pool.ready_lanes == 1;
        }
        let (own, common) = (lane.own, lane.common);
        if let Some(common) = common {
            self.reaches.set_lane(common, id, turn);
        }
        if self.reaches.len(own) > 0 {
            self.reaches.set_lane(own, id, turn);
        }
    }

    /// Updates the order for all lanes of the pool.
    pub(crate) fn pool_changed(&mut self, id: PoolId) {
        let lanes = self.pools.get(id).expect("a pool that changes is open").lanes.clone();
        lanes.into_iter().for_each(|lane| self.lane_changed(lane));
    }

    /// Updates the order for the lane and, since its pool's time has changed, for the pool's other lanes.
    #[inline]
    fn lanes_changed(&mut self, id: LaneId) {
        let pool = self.lanes.get(id).expect("the changed lane exists").pool;
        match self.pools.get(pool).expect("a lane's pool is open").lanes[..] {
            [_] => self.lane_changed(id),
            _ => self.pool_changed(pool),
        }
    }

    #[inline]
    fn correct(&mut self, id: JobId, change: impl Fn(u64, u64) -> u64, ns: u64) {
        if ns == 0 {
            return;
        }
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.used = change(job.used, ns);
        let lane = self.lanes.get_mut(job.lane).expect("the job's lane exists");
        if lane.ready.key(id.index(), &self.turns).is_some() {
            lane.ready.set(id.index(), Some(job.turn()), &mut self.turns);
        }
        let pool = self.pools.get_mut(lane.pool).expect("a lane's pool is open");
        pool.used = change(pool.used, pool.share_of(ns));
        let lane = job.lane;
        self.lanes_changed(lane);
    }
}
