//! A worker's slot: whether the worker lends it, or leaves it to other pools.
//!
//! While all items of a worker wait for other items, these other items may use its slot. Otherwise nested pools could
//! wait for each other forever. A task that waits in farpool marks that in the status page. If the task has started a
//! client in another process, the coordinator reports when that client waits; the agent knows its worker
//! (`borrowers.rs`).

use farpool_link::Status;
use farpool_link::item_token::NO_ITEM;

/// What becomes of a worker's slot while the worker has items.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// It lends its slot: all its items wait for other items.
    lent: bool,
    /// Positions of items whose clients wait: the slot is lent while one of them runs alone.
    waiting_clients: Vec<u32>,
    /// It gets no items until other pools have had their turn.
    yields: bool,
}

impl Lending {
    pub(super) fn is_lent(&self) -> bool {
        self.lent
    }

    pub(super) fn yields(&self) -> bool {
        self.yields
    }

    pub(super) fn set_yields(&mut self, yields: bool) {
        self.yields = yields;
    }

    /// Records the positions of the items whose clients wait.
    pub(super) fn set_waiting_clients(&mut self, positions: &[u32]) {
        self.waiting_clients = positions.to_vec();
    }

    /// Forgets which clients wait. Returns whether any did.
    pub(super) fn clear_waiting_clients(&mut self) -> bool {
        let any = !self.waiting_clients.is_empty();
        self.waiting_clients.clear();
        any
    }

    /// Decides whether the slot is lent. `may`: the worker has items. `waiting`: how many of them wait in farpool.
    /// `running` returns the positions of the running items.
    pub(super) fn update<I: Iterator<Item = u32>>(
        &mut self,
        may: bool,
        waiting: u64,
        running: impl Fn() -> I,
        threads: usize,
    ) {
        let all_wait = || waiting > 0 && waiting >= running().count() as u64;
        self.lent = may && (all_wait() || self.client_waits(running(), threads));
    }

    /// Takes the slot back, since the worker ends.
    pub(super) fn end(&mut self) {
        self.lent = false;
    }

    /// Returns whether the slot is lent, or may become lent without a message.
    pub(super) fn may_lend(&self, status: &Status) -> bool {
        self.lent || !self.waiting_clients.is_empty() || status.waiting() > 0
    }

    /// Returns whether the worker runs a single item, and a client that this item has started waits.
    fn client_waits(&self, mut running: impl Iterator<Item = u32>, threads: usize) -> bool {
        if self.waiting_clients.is_empty() {
            return false;
        }
        let (Some(item), None) = (running.next(), running.next()) else { return false };
        self.waiting_clients.iter().any(|position| may_match(item, *position, threads))
    }
}

/// Returns whether a worker runs the item that a client names by this position.
pub(super) fn runs_item(status: &Status, position: u32, threads: usize) -> bool {
    status.running(threads).any(|item| may_match(item.position, position, threads))
}

/// Returns whether a client that names this position may belong to the running item.
///
/// The environment belongs to all threads and names the latest item to begin. With several threads, an earlier item may
/// have started the client.
fn may_match(running: u32, named: u32, threads: usize) -> bool {
    if threads == 1 { running == named } else { running <= named && named != NO_ITEM }
}
