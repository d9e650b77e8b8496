//! Jobs of a pool that may run on the same agents, and which of them goes next.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::heap::Heap;
use crate::ids::{PoolId, ReachId};
use crate::labels::Labels;

/// The jobs of a pool that require the same. A pool has one lane, and another for each set of labels that jobs of it require.
pub(crate) struct Lane {
    pub(crate) pool: PoolId,
    /// All that agents must have, what the pool requires included.
    pub(crate) require: Labels,
    /// Its jobs that have something to run.
    pub(crate) ready: Heap<JobTurn>,
    pub(crate) open_jobs: u32,
    pub(crate) clocks: Clocks,
    /// The agents where only this lane may run, as far as `own` goes, and those that it has in common with other lanes.
    pub(crate) own: ReachId,
    pub(crate) common: Option<ReachId>,
}

/// The least is the job to be served next: the one that matters most, then the one that has used least slot time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct JobTurn {
    pub(crate) priority: Reverse<i32>,
    pub(crate) used: u64,
}

/// The least is the lane to be served next: that of the pool that has used least slot time, then the one with the job
/// to be served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) pool_used: u64,
    pub(crate) job: JobTurn,
}

/// For each priority, the slot time at which jobs of it stand: what the one had used that was served last.
#[derive(Default)]
pub(crate) struct Clocks {
    latest: (i32, u64),
    others: BTreeMap<i32, u64>,
    // For priorities that are not known.
    least: u64,
}

/// More priorities than that at once are not told apart.
const MOST_CLOCKS: usize = 64;

impl Clocks {
    /// Where jobs of this priority stand.
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
        // Those that were forgotten do not start before the others.
        assert_eq!([5, 7, 299].map(|priority| clocks.of(priority)), [1000; 3]);
    }
}
