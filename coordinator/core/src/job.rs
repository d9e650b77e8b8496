//! The state of a job.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::adapt::Pace;
use crate::event::JobPolicy;
use crate::ids::{AgentId, Id, LaneId, PoolId};
use crate::lane::JobTurn;
use crate::queue::Queue;
use crate::run::Run;

/// A job and its queued items.
pub(crate) struct Job {
    pub(crate) pool: PoolId,
    pub(crate) lane: LaneId,
    pub(crate) policy: JobPolicy,
    pub(crate) queue: Queue,
    pub(crate) pace: Pace,
    /// Items that have arrived.
    pub(crate) arrived: u64,
    /// Items that have their outcome.
    pub(crate) outcomes: u64,
    /// Slot time it has used, for fairness; see `fair`.
    pub(crate) used: u64,
    /// How many jobs were opened before it. After 2^32 jobs it starts again from 0.
    pub(crate) opened: u32,
    /// The agents that know it.
    pub(crate) agents: AgentSet,
    /// Attempts made at items of which one copy failed while another was running.
    pub(crate) tried: BTreeMap<u64, u32>,
}

impl Job {
    pub(crate) fn new(pool: PoolId, lane: LaneId, policy: JobPolicy, opened: u32) -> Self {
        Self {
            pool,
            lane,
            policy,
            queue: Queue::default(),
            pace: Pace::default(),
            arrived: 0,
            outcomes: 0,
            used: 0,
            opened,
            agents: AgentSet::default(),
            tried: BTreeMap::new(),
        }
    }

    /// Its sort key, if it has something to run.
    #[inline]
    pub(crate) fn turn(&self) -> JobTurn {
        JobTurn { priority: Reverse(self.policy.priority), used: self.used, opened: self.opened }
    }

    /// Returns the attempt number of an item that began as attempt `began_as`.
    pub(crate) fn attempt_of(&self, item: u64, began_as: u32) -> u32 {
        self.tried.get(&item).map_or(began_as, |&tries| began_as.max(tries.saturating_add(1)))
    }

    /// Returns the attempt numbers of these items, as runs of items with the same number. They are of a chunk whose
    /// `first` item began as attempt `began_as`.
    pub(crate) fn attempts_of(&self, run: Run, (first, began_as): (u64, u32)) -> Vec<(Run, u32)> {
        let mut runs: Vec<(Run, u32)> = Vec::new();
        for item in run.first..run.end() {
            let attempt = self.attempt_of(item, if item == first { began_as } else { 1 });
            match runs.last_mut() {
                Some((run, same)) if *same == attempt => run.count += 1,
                _ => runs.push((Run::new(item, 1), attempt)),
            }
        }
        runs
    }

    /// Notes that the items have their outcomes.
    #[inline]
    pub(crate) fn record_outcomes(&mut self, first: u64, count: u64) {
        self.outcomes += count;
        if !self.tried.is_empty() {
            self.forget_tried(first, count);
        }
    }

    fn forget_tried(&mut self, first: u64, count: u64) {
        while let Some((&item, _)) = self.tried.range(first..first + count).next() {
            self.tried.remove(&item);
        }
    }

    /// Queues items again; `attempt` is the next attempt number of the first. Items that were tried are queued
    /// separately.
    pub(crate) fn give_back(&mut self, mut run: Run, mut attempt: u32, item_bytes: u64) {
        while let Some((&item, &tries)) = self.tried.range(run.first..run.end()).next() {
            if item > run.first {
                let before = item - run.first;
                self.queue.give_back(Run::new(run.first, before), attempt, item_bytes * before);
                attempt = 1;
            }
            self.queue.give_back(Run::new(item, 1), attempt.max(tries.saturating_add(1)), item_bytes);
            self.tried.remove(&item);
            (run, attempt) = (Run::new(item + 1, run.end() - item - 1), 1);
        }
        if run.count > 0 {
            self.queue.give_back(run, attempt, item_bytes * run.count);
        }
    }

    /// Whether a second copy of one of its chunks may run.
    pub(crate) fn speculates(&self) -> bool {
        self.policy.speculate && self.policy.retries > 0
    }

    /// Whether it is finished.
    pub(crate) fn is_over(&self) -> bool {
        self.queue.ended() && self.outcomes == self.arrived
    }
}

/// A set of agents, one bit each.
#[derive(Default)]
pub(crate) struct AgentSet {
    // Most clusters have fewer than 64 agents: then a job allocates nothing for them.
    low: u64,
    high: Vec<u64>,
}

impl AgentSet {
    /// Adds the agent. Returns false if it was in the set.
    #[inline]
    pub(crate) fn insert(&mut self, id: AgentId) -> bool {
        let (word, bit) = self.place(id);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    pub(crate) fn remove(&mut self, id: AgentId) {
        let (word, bit) = self.place(id);
        *word &= !bit;
    }

    /// Returns the indices of its agents.
    pub(crate) fn indices(&self) -> impl Iterator<Item = u32> {
        let words = std::iter::once(self.low).chain(self.high.iter().copied());
        words.enumerate().flat_map(|(at, word)| {
            // Each step clears the lowest bit.
            let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
            rest.take_while(|&word| word != 0).map(move |word| at as u32 * 64 + word.trailing_zeros())
        })
    }

    #[inline]
    fn place(&mut self, id: AgentId) -> (&mut u64, u64) {
        let (at, bit) = (id.index() as usize / 64, 1 << (id.index() % 64));
        if at == 0 {
            return (&mut self.low, bit);
        }
        if self.high.len() < at {
            self.high.resize(at, 0);
        }
        (&mut self.high[at - 1], bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tried_items_are_queued_separately_once() {
        let lane = LaneId::new(0, 1);
        let mut job = Job::new(PoolId::new(0, 1), lane, JobPolicy::default(), 0);
        job.queue.arrive(Run::new(0, 9), 0);
        job.queue.take(9);
        job.tried.extend([(2, 1), (3, 4), (7, 2), (8, 1)]);
        assert_eq!([(2, 1), (2, 5), (1, 3)].map(|(item, began_as)| job.attempt_of(item, began_as)), [2, 5, 3]);
        job.record_outcomes(7, 1);
        job.give_back(Run::new(0, 7), 1, 0);
        job.give_back(Run::new(8, 1), 3, 0);
        let mut pieces = Vec::new();
        while let Some(piece) = job.queue.next(None) {
            job.queue.take(piece.run.count);
            pieces.push((piece.run.first, piece.run.count, piece.attempt));
        }
        assert_eq!(pieces, [(0, 2, 1), (2, 1, 2), (3, 1, 5), (4, 3, 1), (8, 1, 3)]);
        assert!(job.tried.is_empty() && job.outcomes == 1);
    }

    #[test]
    fn a_set_of_agents() {
        let mut set = AgentSet::default();
        let agents = [0, 3, 63, 64, 130, 200].map(|index| AgentId::new(index, 7));
        for agent in agents {
            assert!(set.insert(agent) && !set.insert(agent));
        }
        assert!(set.indices().eq([0, 3, 63, 64, 130, 200]));
        set.remove(agents[2]);
        set.remove(AgentId::new(500, 1));
        assert!(set.indices().eq([0, 3, 64, 130, 200]));
    }
}
