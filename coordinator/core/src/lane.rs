//! Jobs of a pool that may run on the same agents, and the order in which they are served.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::heap::Heap;
use crate::ids::{PoolId, ReachId};
use crate::labels::Labels;

/// The jobs of a pool that require the same labels. A pool has one lane for jobs that require none, and one for each
/// other set of labels.
pub(crate) struct Lane {
    pub(crate) pool: PoolId,
    /// All labels that agents must have, including those the pool requires.
    pub(crate) require: Labels,
    /// Its jobs that have something to run.
    pub(crate) ready: Heap<JobTurn>,
    /// Its sort key; `None`: it has nothing to run, or may not now.
    pub(crate) turn: Option<LaneOrder>,
    pub(crate) open_jobs: u32,
    pub(crate) clocks: Clocks,
    /// The reach of this lane alone, and the one that it shares with other lanes.
    pub(crate) own: ReachId,
    pub(crate) common: Option<ReachId>,
}

/// Sort key: the next job to serve is the least. That is the one with the highest priority, then the one that has used
/// least slot time, then the one that was opened first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobTurn {
    pub(crate) priority: Reverse<i32>,
    pub(crate) used: u64,
    pub(crate) opened: u32,
}

/// Sort key: the next lane to serve is the least. That is the one whose pool has used least slot time, then the one
/// whose job is to be served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneOrder {
    pub(crate) pool_used: u64,
    pub(crate) job: JobTurn,
}

/// For each priority, the slot time that the job served last had used.
#[derive(Default)]
pub(crate) struct Clocks {
    latest: (i32, u64),
    others: BTreeMap<i32, u64>,
    // For priorities that have no clock of their own.
    least: u64,
}

/// Beyond this many priorities at once, the clocks are not separate.
const MOST_CLOCKS: usize = 64;

impl Clocks {
    /// Returns the clock for this priority.
    #[inline]
    pub(crate) fn of(&self, priority: i32) -> u64 {
        if priority == self.latest.0 {
            return self.latest.1;
        }
        self.others.get(&priority).copied().unwrap_or(self.least)
    }

    /// A job that has used this much is being served.
    #[inline]
    pub(crate) fn serve(&mut self, priority: i32, used: u64) {
        if priority != self.latest.0 {
            let known = self.of(priority);
            self.others.insert(self.latest.0, self.latest.1);
            self.latest = (priority, known);
            if self.others.len() > MOST_CLOCKS {
                self.least = self.others.values().copied().fold(self.least, u64::max);
                self.others.clear();
            }
        }
        self.latest.1 = self.latest.1.max(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_priority_has_its_clock() {
        let mut clocks = Clocks::default();
        for (priority, used) in [(0, 10), (5, 3), (0, 8), (5, 4), (-1, 100)] {
            clocks.serve(priority, used);
        }
        assert_eq!([0, 5, -1, 7].map(|priority| clocks.of(priority)), [10, 4, 100, 0]);
        for priority in 100..300 {
            clocks.serve(priority, 1000);
        }
        assert!(clocks.others.len() <= MOST_CLOCKS + 1);
        // Forgotten priorities do not start before the others.
        assert_eq!([5, 7, 299].map(|priority| clocks.of(priority)), [1000; 3]);
    }
}
