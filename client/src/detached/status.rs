use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farpool_proto::v1::{DetachedJob, DetachedState as Wire};

use crate::error::Error;

/// A detached job's progress, returned by [`Detached::status`](crate::Detached::status).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DetachedStatus {
    /// Its state.
    pub state: DetachedState,
    /// How many items it has.
    pub items: u64,
    /// How many of them have an outcome: a result or a failure.
    pub done: u64,
    /// How many of them failed.
    pub failed: u64,
    /// When the coordinator had received the whole job.
    pub detached_at: Option<SystemTime>,
    /// When it ended, if it has.
    pub ended_at: Option<SystemTime>,
    /// When its outcomes expire, if it has ended.
    pub expires_at: Option<SystemTime>,
}

/// The state of a detached job; more states may be added.
///
/// ```no_run
/// # fn main() -> Result<(), farpool::Error> {
/// use farpool::DetachedState;
///
/// match farpool::attach::<u64>("nightly")?.status()?.state {
///     DetachedState::Running => println!("it runs"),
///     DetachedState::Finished => println!("it is done"),
///     other => println!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DetachedState {
    /// Its items are still being sent to the coordinator: nothing runs yet.
    Receiving,
    /// It is running, or waiting for its turn.
    Running,
    /// Every item has an outcome.
    Finished,
    /// It was cancelled: only some of its items have an outcome.
    Cancelled,
    /// It cannot run: [`Detached::get`](crate::Detached::get) says why.
    Failed,
}

impl DetachedStatus {
    #[doc(hidden)]
    pub fn read(job: &DetachedJob) -> Result<Self, Error> {
        let state = match job.state() {
            Wire::Receiving => DetachedState::Receiving,
            Wire::Running => DetachedState::Running,
            Wire::Finished => DetachedState::Finished,
            Wire::Cancelled => DetachedState::Cancelled,
            Wire::Failed => DetachedState::Failed,
            Wire::Unspecified => {
                return Err(Error::protocol("the coordinator reported a state that this version does not know"));
            }
        };
        Ok(Self {
            state,
            items: job.items,
            done: job.done,
            failed: job.failed,
            detached_at: time(job.detached_ms),
            ended_at: time(job.ended_ms),
            expires_at: time(job.expires_ms),
        })
    }
}

fn time(ms: u64) -> Option<SystemTime> {
    (ms > 0).then(|| UNIX_EPOCH.checked_add(Duration::from_millis(ms))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_times_are_none() {
        let job = DetachedJob { state: Wire::Running.into(), items: 3, detached_ms: 1500, ..DetachedJob::default() };
        let status = DetachedStatus::read(&job).unwrap();
        assert_eq!((status.state, status.items), (DetachedState::Running, 3));
        assert_eq!(status.detached_at, Some(UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!((status.ended_at, status.expires_at), (None, None));
    }

    #[test]
    fn an_unknown_state_is_an_error_and_an_impossible_time_is_none() {
        DetachedStatus::read(&DetachedJob { state: 77, ..DetachedJob::default() }).unwrap_err();
        let job = DetachedJob { state: Wire::Failed.into(), ended_ms: u64::MAX, ..DetachedJob::default() };
        DetachedStatus::read(&job).unwrap();
    }
}
