//! Who goes next: weighted fair queueing by slot time, of pools first and then of a pool's jobs.
//!
//! Each pool, and each job, has used some slot time, and the one that has used least goes next; a pool's is divided by its
//! weight. What a chunk is expected to take is charged when it is handed out and put right when it has been measured.
//! Who has had nothing to run for a while, a new one above all, starts where the others stand that are being served: it neither
//! waits until it is their turn again nor makes up for the time it was away.
//!
//! Where they stand, each agent has a clock for, as pools may share some agents and not others: what the pool had used
//! that the agent served last. For the same reason no pool ever falls behind the clock of an agent that serves it by more
//! than [`MOST_BEHIND_NS`]. For the jobs of a lane, which all run on the same agents, the lane has the clocks.

use std::cmp::Reverse;

use crate::core::Core;
use crate::ids::{AgentId, Id, JobId, LaneId, PoolId};
use crate::lane::{JobTurn, Turn};

/// What a pool makes up for at most that got less than others on agents where those are not.
const MOST_BEHIND_NS: u64 = 1_000_000_000;

impl Core {
    /// Brings the order in line after the job's queue changed.
    #[inline]
    pub(crate) fn requeued(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let lane = self.lanes.get_mut(job.lane).expect("a job's lane is there");
        let was_ready = lane.ready.key(id.index(), &self.turns).is_some();
        let is_ready = job.queue.next(job.policy.chunksize).is_some();
        if was_ready == is_ready {
            return;
        }
        let priority = job.policy.priority;
        if is_ready {
            job.used = job.used.max(lane.clocks.of(priority));
        }
        let turn = JobTurn { priority: Reverse(priority), used: job.used };
        lane.ready.set(id.index(), is_ready.then_some(turn), &mut self.turns);
        let lane = job.lane;
        self.lane_changed(lane);
    }

    /// The job is served by the agent and expected to use this slot time.
    #[inline]
    pub(crate) fn charge(&mut self, id: JobId, agent: AgentId, ns: u64) {
        let job = self.jobs.get(id).expect("a job that is served is open");
        let lane = self.lanes.get_mut(job.lane).expect("a job's lane is there");
        lane.clocks.serve(job.policy.priority, job.used);
        let pool = self.pools.get_mut(lane.pool).expect("a lane's pool is open");
        let agent = self.fleet.agents.get_mut(agent).expect("an agent that serves is there");
        let behind = if std::mem::take(&mut pool.fresh) { 0 } else { MOST_BEHIND_NS };
        pool.used = pool.used.max(agent.clock.saturating_sub(behind));
        agent.clock = agent.clock.max(pool.used);
        self.correct(id, u64::saturating_add, ns);
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

    /// Brings the order in line after jobs of the lane, or its pool, changed.
    #[inline]
    pub(crate) fn lane_changed(&mut self, id: LaneId) {
        let lane = self.lanes.get(id).expect("a lane that changes is there");
        let pool = self.pools.get_mut(lane.pool).expect("a lane's pool is open");
        let turn = match lane.ready.first() {
            Some((_, job)) if !pool.paused => Some(Turn { pool_used: pool.used, job }),
            _ => None,
        };
        let was_ready = self.reaches.has_lane(lane.own, id);
        let (own, common) = (lane.own, lane.common);
        if was_ready != turn.is_some() {
            pool.ready_lanes = if was_ready { pool.ready_lanes - 1 } else { pool.ready_lanes + 1 };
            pool.fresh |= turn.is_some() && pool.ready_lanes == 1;
        }
        self.reaches.set_lane(own, id, turn);
        if let Some(common) = common {
            self.reaches.set_lane(common, id, turn);
        }
    }

    pub(crate) fn pool_changed(&mut self, id: PoolId) {
        let lanes = self.pools.get(id).expect("a pool that changes is open").lanes.clone();
        lanes.into_iter().for_each(|lane| self.lane_changed(lane));
    }

    #[inline]
    fn correct(&mut self, id: JobId, change: impl Fn(u64, u64) -> u64, ns: u64) {
        if ns == 0 {
            return;
        }
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.used = change(job.used, ns);
        let lane = self.lanes.get_mut(job.lane).expect("a job's lane is there");
        if lane.ready.key(id.index(), &self.turns).is_some() {
            let turn = JobTurn { priority: Reverse(job.policy.priority), used: job.used };
            lane.ready.set(id.index(), Some(turn), &mut self.turns);
        }
        let pool = self.pools.get_mut(lane.pool).expect("a lane's pool is open");
        pool.used = change(pool.used, if pool.weight == 1 { ns } else { ns / u64::from(pool.weight) });
        match pool.lanes[..] {
            [lane] => self.lane_changed(lane),
            _ => {
                let pool = lane.pool;
                self.pool_changed(pool);
            }
        }
    }
}
