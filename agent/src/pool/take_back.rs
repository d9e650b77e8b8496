//! Taking back what has not begun: for a worker that would begin it sooner, for an agent that would, or because nobody
//! wants it any more.

use farpool_link::clock;
use farpool_link::record::Kind;

use super::WorkerPool;
use super::chunks::Piece;
use super::worker::{Given, State, Worker};

/// Less work than this, in nanoseconds, is not worth taking from one worker for another: that costs a wake-up.
const WORTH_TAKING_NS: f64 = 100_000.0;
/// A worker that neither began nor finished an item for this long is on a long one: what waits behind it moves.
const STALLED_NS: u64 = 500_000;
/// One that takes nothing for this long though it could stands still: it was stopped, or is traced, or the system does not
/// let it run. What it has not begun moves.
pub(super) const STUCK_NS: u64 = 1_000_000_000;

impl WorkerPool {
    /// Moves work that has not begun from a busy worker to an idle one; returns whether there is something to give.
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

    /// How many items should move from a worker to an idle one, if any; and whether these are all that it has.
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
        // All that waits moves from a worker on a long item. From one that makes progress, half of it does, unless that worker has not
        // yet come to where the last items were taken.
        let items = match idle >= STALLED_NS {
            true => waiting,
            false if worker.revoking => 0,
            false if self.pace.estimate(u64::from(waiting)) >= WORTH_TAKING_NS => waiting.div_ceil(2),
            false => 0,
        };
        (items > 0).then_some((items, false))
    }

    /// When work is due to be moved to a worker that idles.
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
            // It may have been due for some time, and was not got just now since it was about to begin.
            takers.any_beside(self, at, all).then(|| (worker.progress.2 + patience).max(now + STALLED_NS))
        };
        (0..self.workers.len()).filter_map(due).min()
    }

    /// Whether a worker could be given more, if so many are busy.
    fn takes_more(&self, at: usize, busy: usize) -> bool {
        let worker = &self.workers[at];
        worker.takes_items()
            && worker.rest.is_none()
            && worker.given.len() < self.threads
            && (!worker.given.is_empty() || busy < self.may_run)
    }

    /// The first position, not before `from`, from which on everything can be taken back: what has begun stays, and
    /// chunks that must stay together are not cut, unless nobody wants them.
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

    /// Takes back what has not begun from position `from` on, or from the next one on from where it can be taken. Returns
    /// whether it got anything.
    pub(super) fn take_back(&mut self, at: usize, mut from: u32) -> bool {
        let first = loop {
            let Some(first) = self.boundary(at, from) else { return false };
            match self.workers[at].memory.status().revoke(first) {
                Ok(()) => break first,
                // It has begun more meanwhile: perhaps a chunk that must not be cut now.
                Err(claimed) => from = claimed,
            }
        };
        let worker = &mut self.workers[at];
        if !std::mem::replace(&mut worker.revoking, true) {
            worker.revoked_at = clock::now();
            // Orders are short and the ring keeps room for them. If not, the link is broken: the worker never gets
            // another item and is ended by whoever finds out.
            if worker.order_behind(Kind::Resume).unwrap_or(false) {
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
        taken.into_iter().for_each(|piece| self.queue_in_front(piece));
        true
    }

    /// Parts of a chunk that were given one after another are one piece again: a chunk that must stay together is.
    fn queue_in_front(&mut self, piece: Piece) {
        match self.queue.front_mut() {
            Some(next) if next.chunk == piece.chunk && piece.first + piece.count == next.first => {
                (next.first, next.count) = (piece.first, piece.count + next.count);
            }
            _ => self.queue.push_front(piece),
        }
    }

    /// Takes back what has not begun of a chunk, wherever it is.
    pub(super) fn take_back_chunk(&mut self, slot: u32) {
        for at in 0..self.workers.len() {
            let first = self.workers[at].given.iter().find(|given| given.chunk == slot).map(Given::next);
            if let Some(first) = first.filter(|_| self.workers[at].can_give_back_more()) {
                self.take_back(at, first);
            }
        }
    }
}

/// How many workers could be given more: as things are, and if one that is busy now were not.
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

    /// Whether there is one beside this worker, from which all that it has would be taken, or not all.
    fn any_beside(&self, pool: &WorkerPool, at: usize, all: bool) -> bool {
        let (takers, busy) =
            if all { (self.with_one_less, self.busy.saturating_sub(1)) } else { (self.now, self.busy) };
        takers > usize::from(pool.takes_more(at, busy))
    }
}

impl Worker {
    /// Where the last so many of the items that it has begin. Behind them may be positions that were taken back.
    fn last_given(&self, items: u32) -> u32 {
        self.given.back().map_or(self.next_position, Given::end).saturating_sub(items)
    }

    /// Whether something can be taken back from it now.
    pub(super) fn can_give_back(&self) -> bool {
        !self.revoking && self.can_give_back_more()
    }

    /// The same, even if it has not passed yet what was taken back before: what lies before that can be, too.
    pub(super) fn can_give_back_more(&self) -> bool {
        matches!(self.state, State::Ready | State::Retiring) && !self.given.is_empty()
    }
}
