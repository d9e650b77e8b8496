//! A store that cannot write: since when it has failed, and when to retry.

use std::sync::Arc;

/// How long writing must fail before clients that detach jobs are refused, in ns. A disk may fail only for a moment.
const PATIENCE_NS: u64 = 500_000_000;

/// How often to retry because a client waits, in ns. The write may be large.
const NEXT_TRY_NS: u64 = 200_000_000;

/// The state while writing fails.
pub(super) struct Failing {
    /// The reason, as operators see it.
    pub(super) why: Arc<str>,
    since: u64,
    /// When to retry if a client waits.
    pub(super) try_at: u64,
}

impl Failing {
    /// `before` is the state so far, if writing has failed already.
    pub(super) fn new(why: Arc<str>, before: Option<&Self>, now: u64) -> Self {
        let (since, try_at) = before.map_or((now, now + PATIENCE_NS), |before| (before.since, before.try_at));
        Self { why, since, try_at }
    }

    /// Returns whether clients should no longer wait.
    pub(super) fn has_lasted(&self, now: u64) -> bool {
        self.since + PATIENCE_NS <= now
    }

    /// Notes that the write is retried.
    pub(super) fn tried(&mut self, now: u64) {
        self.try_at = now + NEXT_TRY_NS;
    }
}
