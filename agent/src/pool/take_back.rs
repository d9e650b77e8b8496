//! Taking back what has not begun: for a worker that would begin it sooner, for an agent that would, or because nobody
//! wants it any more.

use super::WorkerPool;
use super::chunks::Piece;
use super::worker::{Given, State, Worker};
use crate::link::record::Kind;

/// Less work than this, in nanoseconds, is not worth taking from one worker for another: that costs a wake-up.
const WORTH_TAKING_NS: f64 = 100_000.0;
/// A worker that neither began nor finished an item for this long is on a long one: what waits behind it moves.
pub(super) const STALLED_NS: u64 = 500_000;

impl WorkerPool {
    /// Moves work that has not begun from a busy worker to an idle one; returns whether there is something to give.
    pub(super) fn move_work(&mut self, now: u64) -> bool {
        if !self.some_worker_idles() {
            return false;
        }
        let candidates = self.workers.iter().enumerate().filter(|(_, worker)| worker.can_give_back());
        let Some((victim, waiting)) =
            candidates.map(|(at, worker)| (at, worker.waiting(self.threads))).max_by_key(|(_, waiting)| *waiting)
        else {
            return false;
        };
        let stalled = now.saturating_sub(self.workers[victim].progress.2) >= STALLED_NS;
        if waiting == 0 || !(stalled || self.pace.estimate(u64::from(waiting)) >= WORTH_TAKING_NS) {
            return false;
        }
        // All of it from one that is stuck, half of it from one that goes on.
        let moves = if stalled { waiting } else { waiting.div_ceil(2) };
        let from = self.boundary(victim, self.workers[victim].next_position - moves);
        from.is_some_and(|from| self.take_back(victim, from))
    }

    /// Whether a worker could be given more.
    fn some_worker_idles(&self) -> bool {
        let busy = self.running();
        self.workers.iter().any(|worker| {
            worker.takes_items()
                && worker.rest.is_none()
                && worker.given.len() < self.threads
                && (!worker.given.is_empty() || busy < self.may_run)
        })
    }

    /// Where work can be taken back from: chunks that must stay together are not cut.
    pub(super) fn boundary(&self, at: usize, from: u32) -> Option<u32> {
        let worker = &self.workers[at];
        let given = worker.given.iter().find(|given| given.end() > from)?;
        let chunk = &self.chunks[given.chunk as usize];
        if !self.jobs[chunk.job as usize].whole_chunks {
            return Some(from.max(given.position));
        }
        let mut starts = worker
            .given
            .iter()
            .filter(|given| given.first == self.chunks[given.chunk as usize].first && given.done == 0);
        starts.find(|given| given.position >= from.max(worker.memory.status().claimed())).map(|given| given.position)
    }

    /// Takes everything from position `from` on back that has not begun; returns whether it got anything.
    pub(super) fn take_back(&mut self, at: usize, from: u32) -> bool {
        let worker = &mut self.workers[at];
        let first = worker.memory.status().revoke(from);
        if worker.given.back().is_none_or(|last| last.end() <= first) {
            // While an earlier order to go on is on its way, the worker is let go on when it has passed that.
            if !worker.revoking {
                worker.memory.status().resume();
            }
            return false;
        }
        if !worker.revoking {
            worker.revoking = true;
            // Orders are short and the ring keeps room for them. If not, the link is broken: the worker never gets
            // another item and is ended by whoever finds out.
            if worker.order(Kind::Resume, 0, &[]).unwrap_or(false) {
                worker.show();
            }
        }
        let mut taken = Vec::new();
        taken.extend(worker.rest.take());
        while let Some(last) = worker.given.back_mut() {
            if last.end() <= first {
                break;
            }
            let keep = first.saturating_sub(last.position).max(last.done);
            taken.push(Piece {
                chunk: last.chunk,
                first: last.first + u64::from(keep),
                count: u64::from(last.count - keep),
            });
            last.count = keep;
            if last.left() > 0 {
                break;
            }
            worker.given.pop_back();
        }
        // The last taken is the first in order.
        for piece in taken {
            self.queue.push_front(piece);
        }
        true
    }

    /// Takes back what has not begun of a chunk, wherever it is.
    pub(super) fn take_back_chunk(&mut self, slot: u32) {
        for at in 0..self.workers.len() {
            let first = self.workers[at].given.iter().find(|given| given.chunk == slot).map(Given::next);
            if let Some(first) = first.filter(|_| self.workers[at].can_give_back_more())
                && let Some(from) = self.boundary(at, first)
            {
                self.take_back(at, from);
            }
        }
    }
}

impl Worker {
    /// Whether something can be taken back from it now.
    pub(super) fn can_give_back(&self) -> bool {
        !self.revoking && self.can_give_back_more()
    }

    /// The same, even if it has not passed yet what was taken back before: what lies before that can be, too.
    fn can_give_back_more(&self) -> bool {
        matches!(self.state, State::Ready | State::Retiring) && self.sending.is_none() && !self.given.is_empty()
    }
}
