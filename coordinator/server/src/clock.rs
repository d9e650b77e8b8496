//! The coordinator's clock.

use std::time::Duration;

use tokio::time::Instant;

/// Counts from the server's start, and never goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Returns the time in ns.
    pub(super) fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Returns the instant for the time `at`.
    pub(super) fn instant(&self, at: u64) -> Instant {
        self.start + Duration::from_nanos(at)
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
