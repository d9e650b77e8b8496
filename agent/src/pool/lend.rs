//! Slots that are lent: a worker whose items all wait for other items, of pools that they have opened, leaves its slot to
//! those, or nested pools could wait for each other for ever.

use super::WorkerPool;
use super::worker::State;

impl WorkerPool {
    /// Finds out whether a worker uses its slot.
    pub(super) fn note_lending(&mut self, at: usize) {
        let threads = self.threads;
        let worker = &mut self.workers[at];
        let status = worker.memory.status();
        let waiting = status.waiting();
        let lent = waiting > 0
            && matches!(worker.state, State::Ready | State::Retiring)
            && !worker.is_idle()
            && waiting >= status.running(threads).count() as u64;
        worker.lent = lent;
        if lent && worker.not_begun() > 0 {
            // What waits behind a waiting item may be the very thing that it waits for.
            self.take_back_all(at);
        }
        self.any_waits = self.workers.iter().any(|worker| worker.lent || worker.memory.status().waiting() > 0);
    }
}
