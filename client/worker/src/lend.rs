//! A task that waits for a job of a pool on the same cluster lends its slot: else nested pools could wait for each other's
//! slots for ever.

use std::sync::{Arc, OnceLock};

use farpool_link::fork::Owned;

use crate::bell::Bell;

/// This worker's bell; not set in other processes. A process that a task has forked is none of the agent's.
static BELL: OnceLock<Owned<Arc<Bell>>> = OnceLock::new();

/// Until it is dropped, the agent takes this thread for one that only waits.
#[derive(Debug)]
#[must_use = "the slot is lent for as long as this lives"]
pub struct LendGuard {
    bell: Option<&'static Bell>,
}

/// To be called by a thread that is about to wait for a job on a cluster. In a process that is no worker it does nothing.
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

/// This process is a worker.
pub(crate) fn in_worker(bell: &Arc<Bell>) {
    // A worker has one bell.
    let _ = BELL.set(Owned::new(Arc::clone(bell)));
}
