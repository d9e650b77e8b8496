//! Lends slots: while all items of a worker wait for other items, those may use its slot. Otherwise nested pools could
//! wait for each other forever.
//!
//! A task that waits in farpool says so in the status page. For a client in another process that the task has started,
//! the coordinator says so; the agent knows the worker (`borrowers.rs`).

use farpool_link::item_token::NO_ITEM;

use super::WorkerPool;
use super::worker::{State, Worker};

impl WorkerPool {
    /// Records the positions of the items whose clients wait. Returns whether the worker with this secret belongs to
    /// this pool.
    pub(crate) fn lend_slot(&mut self, secret: u128, positions: &[u32]) -> bool {
        let mut workers = self.workers.iter_mut();
        let Some(worker) = workers.find(|worker| worker.memory.status().has_item_secret(secret)) else { return false };
        worker.lend_for = positions.to_vec();
        self.may_lend = true;
        true
    }

    /// Returns the process id of the worker with this secret, if it runs the item at this position.
    pub(crate) fn worker_that_runs(&self, secret: u128, position: u32) -> Option<u32> {
        let threads = self.threads;
        let claimed =
            |worker: &&Worker| worker.memory.status().has_item_secret(secret) && worker.runs_item(position, threads);
        self.workers.iter().find(claimed).map(|worker| worker.pid)
    }

    /// Returns whether the process is one of its workers.
    pub(crate) fn has_worker(&self, pid: u32) -> bool {
        self.workers.iter().any(|worker| worker.pid == pid)
    }

    /// Returns the process id of its fork server.
    pub(crate) fn fork_server(&self) -> u32 {
        self.supervision.fork_server.pid()
    }

    /// Forgets which clients wait.
    pub(crate) fn clear_lending(&mut self) {
        for worker in &mut self.workers {
            self.may_lend |= !worker.lend_for.is_empty();
            worker.lend_for.clear();
        }
    }

    /// Updates whether a worker lends its slot.
    pub(super) fn update_lending(&mut self, at: usize) {
        let threads = self.threads;
        let worker = &mut self.workers[at];
        let lent = matches!(worker.state, State::Ready | State::Retiring)
            && !worker.is_idle()
            && (worker.all_items_wait(threads) || worker.client_waits(threads));
        worker.lent = lent;
        if lent && worker.not_begun() > 0 {
            // The waiting item may wait for the very items behind it.
            self.take_back_all(at);
        }
        self.may_lend = self.workers.iter().any(Worker::may_lend_slot);
    }
}

impl Worker {
    /// Returns whether all its running items wait in farpool.
    fn all_items_wait(&self, threads: usize) -> bool {
        let status = self.memory.status();
        let waiting = status.waiting();
        waiting > 0 && waiting >= status.running(threads).count() as u64
    }

    /// Returns whether it runs a single item, and a client that this item has started waits.
    fn client_waits(&self, threads: usize) -> bool {
        if self.lend_for.is_empty() {
            return false;
        }
        let mut running = self.memory.status().running(threads);
        let (Some(item), None) = (running.next(), running.next()) else { return false };
        self.lend_for.iter().any(|position| may_match(item.position, *position, threads))
    }

    /// Returns whether it runs the item that a client names by this position.
    fn runs_item(&self, position: u32, threads: usize) -> bool {
        self.memory.status().running(threads).any(|item| may_match(item.position, position, threads))
    }

    /// Returns whether it lends its slot, or may do so without a message.
    fn may_lend_slot(&self) -> bool {
        self.lent || !self.lend_for.is_empty() || self.memory.status().waiting() > 0
    }
}

/// Returns whether a client that names this position may belong to the running item.
///
/// The environment belongs to all threads and names the latest item to begin. With several threads, an earlier item may
/// have started the client.
fn may_match(running: u32, named: u32, threads: usize) -> bool {
    if threads == 1 { running == named } else { running <= named && named != NO_ITEM }
}
