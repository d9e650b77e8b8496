//! Limits the number of exiting workers.
//!
//! A worker that was told to exit, or is being terminated, may take its time. It is replaced at once, so the number of
//! exiting workers must be bounded.

use nix::sys::signal::Signal;

use super::WorkerPool;
use super::stop::CLOSE_GRACE_NS;
use super::worker::{State, Termination, Worker};

/// Exiting workers that are allowed beyond one for each slot.
const EXTRA_EXITING: usize = 4;

/// Kills exiting workers if a host with this many slots has too many of them. Those that have been exiting longest go
/// first, in the pool that has most.
pub(crate) fn limit_exiting(pools: &mut [WorkerPool], slots: u32, now: u64) {
    let most = most(slots);
    // There are rarely that many workers at all.
    if pools.iter().map(|pool| pool.workers.len()).sum::<usize>() <= most {
        return;
    }
    let exiting: usize = pools.iter().map(WorkerPool::exiting).sum();
    for _ in most..exiting {
        if let Some(pool) = pools.iter_mut().max_by_key(|pool| pool.exiting()) {
            pool.kill_longest_exiting(now);
        }
    }
}

impl WorkerPool {
    /// Returns whether new workers must wait for exiting ones. These were killed already, so it does not take long.
    pub(super) fn must_wait_for_exiting(&self) -> bool {
        let most = most(self.host.settings.slots);
        self.workers.len() > most && self.workers.iter().filter(|worker| worker.is_exiting()).count() > most
    }

    /// Returns the number of exiting workers that were not killed.
    fn exiting(&self) -> usize {
        self.workers.iter().filter(|worker| worker.exits_slowly()).count()
    }

    fn kill_longest_exiting(&mut self, now: u64) {
        let slow = self.workers.iter_mut().filter(|worker| worker.exits_slowly());
        let Some(worker) = slow.min_by_key(|worker| worker.slot_held_until) else { return };
        let Some(termination) = &mut worker.termination else { return };
        *termination = Termination { at: now + CLOSE_GRACE_NS, sigterm_sent: true, sigkill_sent: true, ..*termination };
        worker.state = State::Terminating;
        // An error means that the fork server has died, and the worker with it.
        let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGKILL);
    }
}

impl Worker {
    fn is_exiting(&self) -> bool {
        matches!(self.state, State::Exiting | State::Terminating)
    }

    fn exits_slowly(&self) -> bool {
        self.is_exiting() && self.termination.is_some_and(|termination| !termination.sigkill_sent)
    }
}

fn most(slots: u32) -> usize {
    slots as usize + EXTRA_EXITING
}
