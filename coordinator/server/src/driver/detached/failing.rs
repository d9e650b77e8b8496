//! Since when nothing can be written, and when it is tried again.

use std::sync::Arc;

/// How long nothing can have been written when whoever detaches a job is told so, in ns: a disk that fails for a moment is waited for.
const PATIENCE_NS: u64 = 500_000_000;

/// How soon it may be tried again since somebody waits: what is written may be much.
const NEXT_TRY_NS: u64 = 200_000_000;

/// Nothing can be written.
pub(super) struct Failing {
    /// As operators were told.
    pub(super) why: Arc<str>,
    since: u64,
    /// When it may be tried again since somebody waits.
    pub(super) try_at: u64,
}

impl Failing {
    /// `before`: why nothing could be written by now.
    pub(super) fn new(why: Arc<str>, before: Option<&Self>, now: u64) -> Self {
        let (since, try_at) = before.map_or((now, now + PATIENCE_NS), |before| (before.since, before.try_at));
        Self { why, since, try_at }
    }

    /// Whether nobody waits for its end any more.
    pub(super) fn is_for_long(&self, now: u64) -> bool {
        self.since + PATIENCE_NS <= now
    }

    /// It is being tried again.
    pub(super) fn tried(&mut self, now: u64) {
        self.try_at = now + NEXT_TRY_NS;
    }
}
