//! The time that the coordinator is told.

use std::time::Duration;

use tokio::time::Instant;

/// Counts from the server's start, and never back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// In ns.
    pub(super) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// The moment that is called `at`.
    pub(super) fn instant(&self, at: u64) -> Instant {
        self.start + Duration::from_nanos(at)
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
