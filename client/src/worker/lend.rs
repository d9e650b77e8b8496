//! A task that waits for a job of a pool on the same cluster lends its slot: else nested pools could wait for each other's
//! slots for ever.

use std::sync::{Arc, OnceLock};

use super::bell::Bell;

/// This worker, and its bell; not set in other processes, but for those that it forks.
static BELL: OnceLock<(u32, Arc<Bell>)> = OnceLock::new();

/// Until it is dropped, the agent takes this thread for one that only waits.
#[derive(Debug)]
#[must_use = "the slot is lent for as long as this lives"]
pub(crate) struct LendGuard {
    bell: Option<&'static Bell>,
}

/// To be called by a thread that is about to wait for a job on a cluster. In a process that is no worker it does nothing.
pub(crate) fn lend() -> LendGuard {
    let own = BELL.get().filter(|(pid, _)| *pid == std::process::id());
    let bell = own.map(|(_, bell)| bell.as_ref());
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
pub(super) fn in_worker(bell: &Arc<Bell>) {
    // A worker has one bell.
    let _ = BELL.set((std::process::id(), Arc::clone(bell)));
}
