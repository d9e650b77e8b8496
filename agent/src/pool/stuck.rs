//! Workers that stand still although they run nothing: they were stopped, or are traced, or the system does not let them
//! run. What they were given moves to a worker that is free ([`WorkerPool::move_work`]). If none is, another one is started
//! in their place; they are told to leave, and are ended if they do not.
//!
//! A worker that runs an item is never taken for one of these: it is up to a timeout to end that.

use super::WorkerPool;
use super::take_back::STUCK_NS;
use super::worker::{Given, State, Worker};

impl WorkerPool {
    /// Has workers replaced for whose items nobody else is free.
    pub(super) fn replace_stuck(&mut self, now: u64) {
        if self.held {
            return;
        }
        for at in 0..self.workers.len() {
            if self.replace_at(at).is_some_and(|due| now >= due)
                && (self.workers[at].given.is_empty() || self.take_back(at, 0) && self.workers[at].is_idle())
            {
                self.workers[at].state = State::Retiring;
                self.unsettled = true;
            }
        }
    }

    /// When the next one of them is due.
    pub(super) fn time_to_replace(&self) -> Option<u64> {
        if self.held {
            return None;
        }
        (0..self.workers.len()).filter_map(|at| self.replace_at(at)).min()
    }

    /// When a worker is to be replaced unless it takes something, if something waits for that.
    fn replace_at(&self, at: usize) -> Option<u64> {
        let worker = &self.workers[at];
        if worker.state != State::Ready || worker.lent {
            return None;
        }
        if worker.given.is_empty() {
            // It gets nothing before it has passed what was taken back from it.
            return (worker.revoking && !self.queue.is_empty()).then_some(worker.revoked_at + STUCK_NS);
        }
        let all = worker.given.front().map(Given::next);
        // Of a chunk that has begun, and must stay together, nothing moves.
        (!worker.has_begun(self.threads) && self.boundary(at, 0) == all).then_some(worker.progress.2 + STUCK_NS)
    }
}

impl Worker {
    /// Whether it has begun something of what it has.
    pub(super) fn has_begun(&self, threads: usize) -> bool {
        let status = self.memory.status();
        let claimed = status.claimed();
        self.given.iter().any(|given| given.next() < claimed)
            || status.running(threads).any(|item| self.given.iter().any(|given| given.item_at(item.position).is_some()))
    }
}
