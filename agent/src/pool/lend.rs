//! Slots that are lent: a worker whose items all wait for other items leaves its slot to those, or nested pools could wait for
//! each other for ever.
//!
//! A task that waits in farpool says so itself, in the status page. Of a client in another process that the task has started, the
//! coordinator says that it waits, and the agent knows whose it is (`borrowers.rs`).

use farpool_link::item_token::NO_ITEM;

use super::WorkerPool;
use super::worker::{State, Worker};

impl WorkerPool {
    /// Clients wait that the items at these positions have started. Returns whether the worker with this secret is one of this pool.
    pub(crate) fn lend_slot(&mut self, secret: u128, positions: &[u32]) -> bool {
        let mut workers = self.workers.iter_mut();
        let Some(worker) = workers.find(|worker| worker.memory.status().has_item_secret(secret)) else { return false };
        worker.lend_for = positions.to_vec();
        self.any_waits = true;
        true
    }

    /// The process id of the worker with this secret, if it runs the item at this position.
    pub(crate) fn worker_that_runs(&self, secret: u128, position: u32) -> Option<u32> {
        let threads = self.threads;
        let claimed =
            |worker: &&Worker| worker.memory.status().has_item_secret(secret) && worker.runs_item(position, threads);
        self.workers.iter().find(claimed).map(|worker| worker.pid)
    }

    /// Whether the process is one of its workers.
    pub(crate) fn has_worker(&self, pid: u32) -> bool {
        self.workers.iter().any(|worker| worker.pid == pid)
    }

    /// The process id of its fork server.
    pub(crate) fn fork_server(&self) -> u32 {
        self.supervision.fork_server.pid()
    }

    /// What the coordinator has said of clients that wait does not count any more.
    pub(crate) fn lend_none(&mut self) {
        for worker in &mut self.workers {
            self.any_waits |= !worker.lend_for.is_empty();
            worker.lend_for.clear();
        }
    }

    /// Finds out whether a worker uses its slot.
    pub(super) fn note_lending(&mut self, at: usize) {
        let threads = self.threads;
        let worker = &mut self.workers[at];
        let lent = matches!(worker.state, State::Ready | State::Retiring)
            && !worker.is_idle()
            && (worker.waits_itself(threads) || worker.waits_for_its_client(threads));
        worker.lent = lent;
        if lent && worker.not_begun() > 0 {
            // What waits behind a waiting item may be the very thing that it waits for.
            self.take_back_all(at);
        }
        self.any_waits = self.workers.iter().any(Worker::may_lend);
    }
}

impl Worker {
    /// All its items wait in farpool.
    fn waits_itself(&self, threads: usize) -> bool {
        let status = self.memory.status();
        let waiting = status.waiting();
        waiting > 0 && waiting >= status.running(threads).count() as u64
    }

    /// It runs one item, and a client that this item has started waits.
    fn waits_for_its_client(&self, threads: usize) -> bool {
        if self.lend_for.is_empty() {
            return false;
        }
        let mut running = self.memory.status().running(threads);
        let (Some(item), None) = (running.next(), running.next()) else { return false };
        self.lend_for.iter().any(|position| may_be(item.position, *position, threads))
    }

    /// Whether it runs the item that a client names with this position.
    fn runs_item(&self, position: u32, threads: usize) -> bool {
        self.memory.status().running(threads).any(|item| may_be(item.position, position, threads))
    }

    /// Whether it lends its slot, or may do so without telling first.
    fn may_lend(&self) -> bool {
        self.lent || !self.lend_for.is_empty() || self.memory.status().waiting() > 0
    }
}

/// Whether a client that names this position can be of the item that runs. The environment belongs to all threads, and names the item that
/// was begun last: of several, one that began earlier may have started the client.
fn may_be(running: u32, named: u32, threads: usize) -> bool {
    if threads == 1 { running == named } else { running <= named && named != NO_ITEM }
}
