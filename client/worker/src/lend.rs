//! Lends the slot of a task that waits for a job of a pool on the same cluster. Otherwise nested pools could wait for
//! each other's slots forever.

use std::sync::{Arc, OnceLock};

use farpool_link::fork::Owned;

use crate::bell::Bell;

/// This worker's bell; not set in other processes. A process that a task has forked is not a worker.
static BELL: OnceLock<Owned<Arc<Bell>>> = OnceLock::new();

/// While this exists, the agent treats the thread as waiting.
#[derive(Debug)]
#[must_use = "the slot is lent for as long as this lives"]
pub struct LendGuard {
    bell: Option<&'static Bell>,
}

/// Lends the slot while this thread waits for a job on a cluster. Does nothing in a process that is not a worker.
pub fn lend() -> LendGuard {
    let bell = BELL.get().filter(|bell| bell.owner().is_here()).map(|bell| &***bell);
    if let Some(bell) = bell {
        bell.begin_waiting();
    }
    LendGuard { bell }
}

impl Drop for LendGuard {
    fn drop(&mut self) {
        if let Some(bell) = self.bell {
            bell.end_waiting();
        }
    }
}

/// Records that this process is a worker.
pub(crate) fn in_worker(bell: &Arc<Bell>) {
    // A worker has one bell.
    let _ = BELL.set(Owned::new(Arc::clone(bell)));
}
