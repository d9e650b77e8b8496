//! Cancels chunks: drops their queued items and ends those that run.

use super::worker::{Given, Worker};
use super::{Chunk, WorkerPool};

/// Time for cancelled items to finish by themselves, which saves starting a new worker.
const CANCEL_GRACE_NS: u64 = 10_000_000;

impl WorkerPool {
    /// Cancels the chunks with these ids, which must be sorted. Other items that run on the same worker may be
    /// restarted elsewhere.
    pub(crate) fn cancel_chunks(&mut self, ids: &[u64], now: u64) {
        self.cancel(|chunk| ids.binary_search(&chunk.id).is_ok(), now);
    }

    pub(super) fn cancel(&mut self, unwanted: impl Fn(&Chunk) -> bool, now: u64) {
        let mut any = false;
        for (_, chunk) in self.chunks.iter_mut().filter(|(_, chunk)| !chunk.cancelled && unwanted(chunk)) {
            (chunk.cancelled, any) = (true, true);
        }
        if any {
            self.drop_queued();
            self.cancel_given(now);
        }
    }

    /// Returns whether a worker runs a cancelled item.
    pub(super) fn runs_cancelled(&self, worker: &Worker) -> bool {
        let is_cancelled = |given: &Given| self.chunks[given.chunk as usize].cancelled;
        let mut running = worker.memory.status().running(self.threads);
        running
            .any(|item| worker.given.iter().any(|given| given.item_at(item.position).is_some() && is_cancelled(given)))
    }

    /// Drops cancelled items that no worker has.
    fn drop_queued(&mut self) {
        let (chunks, mut dropped) = (&self.chunks, Vec::new());
        self.queue.retain(|piece| {
            let unwanted = chunks[piece.chunk as usize].cancelled;
            if unwanted {
                dropped.push(*piece);
            }
            !unwanted
        });
        let chunks = &self.chunks;
        let rests = self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.rest.take_if(|rest| chunks[rest.chunk as usize].cancelled));
        dropped.extend(rests);
        for piece in dropped {
            self.settle(piece.chunk, piece.count);
        }
    }

    /// Takes cancelled items back from the workers, and schedules the end of those that run.
    fn cancel_given(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            let is_cancelled = |given: &&Given| self.chunks[given.chunk as usize].cancelled;
            let Some(first) = self.workers[at].given.iter().find(is_cancelled).map(Given::next) else { continue };
            if self.workers[at].can_give_back_more() {
                self.take_back(at, first);
                self.drop_queued();
            }
            if self.workers[at].given.iter().any(|given| self.chunks[given.chunk as usize].cancelled) {
                self.workers[at].cancel_at = Some(now + CANCEL_GRACE_NS);
            }
        }
    }
}
