//! The shared values of a pool: jobs without items, which the core does not know. Agents get them before the items of later jobs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farpool_core::JobId;

/// The shared values of one pool.
#[derive(Default)]
pub(crate) struct SharedValues {
    /// By the client's number for each.
    values: BTreeMap<u64, JobId>,
    /// Values that the client has dropped, each with the name of the newest job that may use it, in order.
    dropped: VecDeque<(u64, u64)>,
    /// The names of the pool's jobs that have not ended, if there are values. Names rise.
    open: BTreeSet<u64>,
}

impl SharedValues {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds a value. `open`: the names of the pool's jobs, which are needed for the first value.
    pub(crate) fn add(&mut self, number: u64, job: JobId, open: impl FnOnce() -> BTreeSet<u64>) {
        if self.is_empty() {
            self.open = open();
        }
        self.values.insert(number, job);
    }

    /// Returns all of them with the client's numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, JobId)> {
        self.values.iter().map(|(&number, &job)| (number, job))
    }

    /// A job has been opened. Its name is higher than those of all others.
    pub(crate) fn job_opened(&mut self, name: u64) {
        if !self.is_empty() {
            self.open.insert(name);
        }
    }

    /// The client has dropped a value. Returns the values that can be freed, and forgets them.
    pub(crate) fn drop_value(&mut self, number: u64) -> Vec<JobId> {
        self.dropped.push_back((self.open.last().copied().unwrap_or(0), number));
        self.take_unused()
    }

    /// A job has ended. Returns the values that can be freed, and forgets them.
    pub(crate) fn job_ended(&mut self, name: u64) -> Vec<JobId> {
        self.open.remove(&name);
        self.take_unused()
    }

    /// Forgets all of them, and returns them.
    pub(crate) fn take_all(&mut self) -> Vec<JobId> {
        std::mem::take(self).values.into_values().collect()
    }

    fn take_unused(&mut self) -> Vec<JobId> {
        let mut unused = Vec::new();
        while let Some((newest, number)) = self.dropped.front().copied()
            && self.open.first().is_none_or(|oldest| *oldest > newest)
        {
            self.dropped.pop_front();
            unused.extend(self.values.remove(&number));
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_the_jobs_that_may_use_them() {
        let [first, second, third] = [1, 2, 3].map(JobId::from_bits);
        let mut values = SharedValues::default();
        values.add(1, first, || BTreeSet::from([5, 7]));
        values.add(2, second, || unreachable!("only the first value needs them"));
        assert_eq!(values.drop_value(1), []);
        values.job_opened(8);
        values.add(3, third, || unreachable!("only the first value needs them"));
        assert_eq!(values.drop_value(3), []);
        assert_eq!(values.job_ended(7), []);
        assert_eq!(values.job_ended(5), [first]);
        assert_eq!(values.iter().map(|(number, _)| number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(values.job_ended(8), [third]);
        assert_eq!(values.drop_value(2), [second]);
        assert!(values.is_empty());
    }

    #[test]
    fn a_value_that_is_dropped_twice_is_freed_once() {
        let value = JobId::from_bits(1);
        let mut values = SharedValues::default();
        values.add(1, value, || BTreeSet::from([5]));
        assert_eq!(values.drop_value(1), []);
        assert_eq!(values.drop_value(1), []);
        assert_eq!(values.job_ended(5), [value]);
        assert_eq!(values.take_all(), []);
    }
}
