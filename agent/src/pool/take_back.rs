//! Takes back items that have not begun: for an idle worker, for another agent, or because they were cancelled.

use farpool_link::clock;
use farpool_link::record::Kind;

use super::WorkerPool;
use super::chunks::Piece;
use super::worker::{Given, State, Worker};

/// Less work than this, in nanoseconds, is not worth moving to another worker, which costs a wake-up.
const WORTH_TAKING_NS: f64 = 100_000.0;
/// A worker that neither began nor finished an item for this long runs a long one: the items behind it move.
const STALLED_NS: u64 = 500_000;
/// A worker that begins nothing for this long although it could is stuck: stopped, traced, or not scheduled. Its items
/// move.
pub(super) const STUCK_NS: u64 = 1_000_000_000;

impl WorkerPool {
    /// Moves work that has not begun from a busy worker to an idle one. Returns whether anything was taken.
    pub(super) fn move_work(&mut self, now: u64) -> bool {
        let takers = Takers::count(self);
        if takers.none() {
            return false;
        }
        let movable = (0..self.workers.len()).filter_map(|at| {
            let (items, all) = self.surplus(at, now)?;
            let from = self.boundary(at, self.workers[at].last_given(items))?;
            takers.any_beside(self, at, all).then_some((items, at, from))
        });
        let Some((_, victim, from)) = movable.max_by_key(|(items, ..)| *items) else { return false };
        self.take_back(victim, from)
    }

    /// Returns how many items should move from a worker to an idle one, and whether these are all that it has.
    fn surplus(&self, at: usize, now: u64) -> Option<(u32, bool)> {
        let worker = &self.workers[at];
        let (idle, not_begun) = (now.saturating_sub(worker.progress.2), worker.not_begun());
        if not_begun == 0 || !worker.can_give_back_more() {
            return None;
        }
        if idle >= STUCK_NS {
            return Some((not_begun, u64::from(not_begun) == worker.outstanding()));
        }
        let waiting = worker.waiting(self.threads);
        // All waiting items move away from a long item. A worker that makes progress gives up half of them, unless it
        // has not yet passed what was taken back last.
        let items = match idle >= STALLED_NS {
            true => waiting,
            false if worker.revoking => 0,
            false if self.pace.estimate(u64::from(waiting)) >= WORTH_TAKING_NS => waiting.div_ceil(2),
            false => 0,
        };
        (items > 0).then_some((items, false))
    }

    /// Returns when work is due to move to an idle worker.
    pub(super) fn time_to_move(&self, now: u64) -> Option<u64> {
        if self.held || !self.queue.is_empty() {
            return None;
        }
        let takers = Takers::count(self);
        if takers.none() {
            return None;
        }
        let due = |at: usize| {
            let worker = &self.workers[at];
            let not_begun = worker.not_begun();
            if not_begun == 0 || !worker.can_give_back_more() {
                return None;
            }
            let waiting = worker.waiting(self.threads);
            let (items, patience) = if waiting > 0 { (waiting, STALLED_NS) } else { (not_begun, STUCK_NS) };
            let all = u64::from(items) == worker.outstanding();
            self.boundary(at, worker.last_given(items))?;
            // It may be overdue because the worker was just about to begin it; look again later.
            takers.any_beside(self, at, all).then(|| (worker.progress.2 + patience).max(now + STALLED_NS))
        };
        (0..self.workers.len()).filter_map(due).min()
    }

    /// Returns whether a worker could take more while `busy` workers are busy.
    fn takes_more(&self, at: usize, busy: usize) -> bool {
        let worker = &self.workers[at];
        worker.takes_items()
            && worker.rest.is_none()
            && worker.given.len() < self.threads
            && (!worker.given.is_empty() || busy < self.may_run)
    }

    /// Returns the first position, from `from` on, from which everything can be taken back. What has begun stays.
    /// Chunks that must stay together are not split, unless they are cancelled.
    pub(super) fn boundary(&self, at: usize, from: u32) -> Option<u32> {
        let worker = &self.workers[at];
        let from = from.max(worker.memory.status().claimed());
        worker.given.iter().filter(|given| given.end() > from).find_map(|given| {
            let chunk = &self.chunks[given.chunk as usize];
            if chunk.cancelled || !self.jobs[chunk.job as usize].whole_chunks {
                return Some(from.max(given.next()));
            }
            let begins = given.first == chunk.first && given.done == 0 && given.position >= from;
            begins.then_some(given.position)
        })
    }

    /// Takes back what has not begun from position `from` on, or from the next possible position. Returns whether it
    /// took anything.
    pub(super) fn take_back(&mut self, at: usize, mut from: u32) -> bool {
        let first = loop {
            let Some(first) = self.boundary(at, from) else { return false };
            match self.workers[at].memory.status().revoke(first) {
                Ok(()) => break first,
                // It has begun more meanwhile: perhaps a chunk that must not be split now.
                Err(claimed) => from = claimed,
            }
        };
        let worker = &mut self.workers[at];
        if !std::mem::replace(&mut worker.revoking, true) {
            worker.revoked_at = clock::now();
            // Orders are short and the ring reserves room for them. If there is none, the link is broken: the worker
            // gets no more items and is terminated when that is noticed.
            if worker.order_or_defer(Kind::Resume).unwrap_or(false) {
                worker.publish();
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
        // They were taken in reverse order.
        taken.into_iter().for_each(|piece| self.queue_in_front(piece));
        true
    }

    /// Queues a piece in front, and joins it with the next piece if they are adjacent. A chunk that must stay together
    /// is then one piece again.
    fn queue_in_front(&mut self, piece: Piece) {
        match self.queue.front_mut() {
            Some(next) if next.chunk == piece.chunk && piece.first + piece.count == next.first => {
                (next.first, next.count) = (piece.first, piece.count + next.count);
            }
            _ => self.queue.push_front(piece),
        }
    }

    /// Takes back the items of a chunk that have not begun, wherever they are.
    pub(super) fn take_back_chunk(&mut self, slot: u32) {
        for at in 0..self.workers.len() {
            let first = self.workers[at].given.iter().find(|given| given.chunk == slot).map(Given::next);
            if let Some(first) = first.filter(|_| self.workers[at].can_give_back_more()) {
                self.take_back(at, first);
            }
        }
    }
}

/// The number of workers that could take more: now, and if one busy worker were idle.
struct Takers {
    now: usize,
    with_one_less: usize,
    busy: usize,
}

impl Takers {
    fn count(pool: &WorkerPool) -> Takers {
        let busy = pool.running();
        let takers = |busy| (0..pool.workers.len()).filter(|&at| pool.takes_more(at, busy)).count();
        let now = takers(busy);
        let with_one_less = if now == 0 && busy > 0 { takers(busy - 1) } else { now };
        Takers { now, with_one_less, busy }
    }

    fn none(&self) -> bool {
        self.with_one_less == 0
    }

    /// Returns whether another worker could take more. `all`: everything that this worker has would be taken.
    fn any_beside(&self, pool: &WorkerPool, at: usize, all: bool) -> bool {
        let (takers, busy) =
            if all { (self.with_one_less, self.busy.saturating_sub(1)) } else { (self.now, self.busy) };
        takers > usize::from(pool.takes_more(at, busy))
    }
}

impl Worker {
    /// Returns the position where its last `items` items begin. Positions behind them may have been taken back.
    fn last_given(&self, items: u32) -> u32 {
        self.given.back().map_or(self.next_position, Given::end).saturating_sub(items)
    }

    /// Returns whether items can be taken back from it now.
    pub(super) fn can_give_back(&self) -> bool {
        !self.revoking && self.can_give_back_more()
    }

    /// The same, even before it has passed what was taken back: items before that position can be taken, too.
    pub(super) fn can_give_back_more(&self) -> bool {
        matches!(self.state, State::Ready | State::Retiring) && !self.given.is_empty()
    }
}
