//! The shared values of a pool: jobs without items, which the core does not know. Agents get them before the items of later jobs.

use farpool_core::JobId;

/// The shared values of one pool.
#[derive(Default)]
pub(crate) struct SharedValues {
    values: Vec<SharedValue>,
}

struct SharedValue {
    /// The client's number for it.
    number: u64,
    job: JobId,
    /// The jobs that may still use it, once the client has dropped it.
    dropped_for: Option<Vec<JobId>>,
}

impl SharedValues {
    pub(crate) fn add(&mut self, number: u64, job: JobId) {
        self.values.push(SharedValue { number, job, dropped_for: None });
    }

    pub(crate) fn contains(&self, job: JobId) -> bool {
        self.values.iter().any(|value| value.job == job)
    }

    /// Returns all of them, in the order in which they were shared.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, JobId)> {
        self.values.iter().map(|value| (value.number, value.job))
    }

    /// The client has dropped a value, which these jobs may still use. Returns whether it can be freed, and forgets it then.
    pub(crate) fn drop_value(&mut self, job: JobId, used_by: Vec<JobId>) -> bool {
        if let Some(value) = self.values.iter_mut().find(|value| value.job == job) {
            value.dropped_for.get_or_insert(used_by);
        }
        !self.take_unused().is_empty()
    }

    /// A job has ended. Returns the values that can be freed, and forgets them.
    pub(crate) fn job_ended(&mut self, job: JobId) -> Vec<JobId> {
        for users in self.values.iter_mut().filter_map(|value| value.dropped_for.as_mut()) {
            users.retain(|user| *user != job);
        }
        self.take_unused()
    }

    /// Forgets all of them, and returns them.
    pub(crate) fn take_all(&mut self) -> Vec<JobId> {
        std::mem::take(&mut self.values).into_iter().map(|value| value.job).collect()
    }

    fn take_unused(&mut self) -> Vec<JobId> {
        let is_unused = |value: &mut SharedValue| value.dropped_for.as_ref().is_some_and(Vec::is_empty);
        self.values.extract_if(.., is_unused).map(|value| value.job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_the_jobs_that_may_use_them() {
        let [first, second, user, later] = [1, 2, 3, 4].map(JobId::from_bits);
        let mut values = SharedValues::default();
        values.add(1, first);
        values.add(2, second);
        assert!(!values.drop_value(first, vec![user]));
        assert!(values.contains(first));
        assert_eq!(values.job_ended(later), []);
        assert_eq!(values.job_ended(user), [first]);
        assert!(!values.contains(first));
        assert!(values.drop_value(second, Vec::new()));
        assert_eq!(values.iter().count(), 0);
    }

    #[test]
    fn a_value_that_is_dropped_twice_is_freed_once() {
        let [value, user, later] = [1, 2, 3].map(JobId::from_bits);
        let mut values = SharedValues::default();
        values.add(1, value);
        assert!(!values.drop_value(value, vec![user]));
        assert!(!values.drop_value(value, vec![user, later]));
        assert_eq!(values.job_ended(user), [value]);
        assert_eq!(values.take_all(), []);
    }
}
