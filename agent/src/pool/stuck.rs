//! Replaces stuck workers: those that make no progress although they run nothing. They were stopped, are traced, or are
//! not scheduled.
//!
//! Their items move to a free worker ([`WorkerPool::move_work`]). If none is free, a replacement is started; the stuck
//! worker is told to exit, and is terminated if it does not.
//!
//! A worker that runs an item never counts as stuck: only a timeout ends it.

use super::WorkerPool;
use super::take_back::STUCK_NS;
use super::worker::{Given, State, Worker};

impl WorkerPool {
    /// Replaces stuck workers whose items no other worker is free to take.
    pub(super) fn replace_stuck(&mut self, now: u64) {
        if self.held {
            return;
        }
        for at in 0..self.workers.len() {
            if self.replace_at(at).is_some_and(|due| now >= due)
                && (self.workers[at].given.is_empty() || self.take_back(at, 0) && self.workers[at].is_idle())
            {
                self.workers[at].state = State::Retiring;
                self.needs_another_round = true;
            }
        }
    }

    /// Returns when the next worker is due to be replaced.
    pub(super) fn time_to_replace(&self) -> Option<u64> {
        if self.held {
            return None;
        }
        (0..self.workers.len()).filter_map(|at| self.replace_at(at)).min()
    }

    /// Returns when a worker is replaced unless it makes progress, if items wait for it.
    fn replace_at(&self, at: usize) -> Option<u64> {
        let worker = &self.workers[at];
        if worker.state != State::Ready || worker.lent {
            return None;
        }
        if worker.given.is_empty() {
            // It gets nothing until it has passed the items that were taken back.
            return (worker.revoking && !self.queue.is_empty()).then_some(worker.revoked_at + STUCK_NS);
        }
        let all = worker.given.front().map(Given::next);
        // A chunk that must stay together does not move once it has begun.
        (!worker.has_begun(self.threads) && self.boundary(at, 0) == all).then_some(worker.progress.2 + STUCK_NS)
    }
}

impl Worker {
    /// Returns whether it has begun any of its items.
    pub(super) fn has_begun(&self, threads: usize) -> bool {
        let status = self.memory.status();
        let claimed = status.claimed();
        self.given.iter().any(|given| given.next() < claimed)
            || status.running(threads).any(|item| self.given.iter().any(|given| given.item_at(item.position).is_some()))
    }
}
