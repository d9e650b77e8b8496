//! Giving workers what they run next, and taking back what has not begun when another worker would begin it sooner.

use super::chunks::Piece;
use super::worker::{Given, State, Worker};
use super::{WorkerPool, death::Reason};
use crate::link::record::Kind;
use crate::link::{Corrupt, MAX_POSITION};

/// Less work than this, in nanoseconds, is not worth taking from one worker for another: that costs a wake-up.
const WORTH_TAKING_NS: f64 = 100_000.0;
/// A worker that neither began nor finished an item for this long is on a long one: what waits behind it moves.
pub(super) const STALLED_NS: u64 = 500_000;

impl WorkerPool {
    /// Gives out what is queued, as far as the workers take it.
    pub(super) fn feed(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            self.workers[at].wants_room = false;
            if self.workers[at].sending.is_some() {
                let sent = self.workers[at].go_on_sending();
                self.workers[at].wants_room = self.workers[at].sending.is_some();
                self.end_if_corrupt(at, sent, now);
            }
        }
        self.fill(now);
        if self.queue.is_empty() && self.move_work(now) {
            self.fill(now);
        }
        for worker in &mut self.workers {
            worker.show();
        }
    }

    fn fill(&mut self, now: u64) {
        // The rest of a chunk that must stay together goes to the worker that has its beginning.
        for at in 0..self.workers.len() {
            while self.workers[at].rest.is_some() && self.workers[at].takes_more_of_its_chunk() && self.give_next(at, now) {}
        }
        // First every worker something, breadth first, then ahead; no more workers at once than the pool has
        // processes (a worker that retires still counts while it runs).
        let mut busy = self.workers.iter().filter(|worker| !worker.given.is_empty()).count();
        for level in 1..=self.threads {
            for at in 0..self.workers.len() {
                if self.queue.is_empty() {
                    return;
                }
                let worker = &self.workers[at];
                let idle = worker.given.is_empty();
                if worker.given.len() >= level || !worker.takes_items() || worker.rest.is_some() || (idle && busy >= self.processes) {
                    continue;
                }
                if self.give_next(at, now) && idle {
                    busy += 1;
                }
            }
        }
        let total = self.queue.len() + self.workers.iter().map(|worker| worker.given.len()).sum::<usize>();
        let ahead = self.pace.depth() - 1;
        let level = (self.threads + ahead).min(total.div_ceil(busy.max(1)));
        for at in 0..self.workers.len() {
            while !self.queue.is_empty() && self.workers[at].takes_ahead(level) && self.give_next(at, now) {}
        }
    }

    /// Gives a worker the next piece, or the first part of it; false if it takes nothing now.
    fn give_next(&mut self, at: usize, now: u64) -> bool {
        let Some(piece) = self.workers[at].rest.take().or_else(|| self.queue.pop_front()) else { return false };
        let whole = self.is_whole(piece);
        let given = self.give(at, piece);
        let count = given.as_ref().copied().unwrap_or(0);
        let left = Piece { chunk: piece.chunk, first: piece.first + u64::from(count), count: piece.count - u64::from(count) };
        if left.count > 0 {
            if whole && count > 0 || self.has_beginning(at, left) {
                self.workers[at].rest = Some(left);
            } else {
                self.queue.push_front(left);
            }
        }
        self.retire_if_due(at);
        self.end_if_corrupt(at, given, now);
        count > 0
    }

    fn give(&mut self, at: usize, piece: Piece) -> Result<u32, Corrupt> {
        let worker = &mut self.workers[at];
        let chunk = &self.chunks[piece.chunk as usize];
        let job = &self.jobs[chunk.job as usize];
        let Some(stretch) = chunk.stretch(piece.first) else { return Ok(0) };
        if !worker.knows.get(chunk.job as usize).copied().unwrap_or(false) {
            if !worker.order(Kind::Function, chunk.job, &job.function)? {
                worker.wants_room = true;
                return Ok(0);
            }
            if worker.knows.len() <= chunk.job as usize {
                worker.knows.resize(chunk.job as usize + 1, false);
            }
            worker.knows[chunk.job as usize] = true;
        }
        let most = if self.threads > 1 {
            1
        } else if job.whole_chunks {
            piece.count
        } else {
            piece.count.min(tasks_left(worker, self.settings.max_tasks_per_child))
        };
        let position = worker.next_position;
        let timed = job.timeout_ns > 0;
        let count = if Worker::is_large(&stretch) {
            u32::from(worker.begin_large(chunk.job, &stretch, timed)?)
        } else {
            worker.run(chunk.job, &stretch, usize::try_from(most).unwrap_or(usize::MAX), timed)?
        };
        worker.wants_room = count == 0 || worker.sending.is_some();
        if count > 0 {
            worker.given.push_back(Given { chunk: piece.chunk, first: piece.first, count, position, done: 0 });
        }
        Ok(count)
    }

    /// Moves work that has not begun from a busy worker to an idle one; returns whether there is something to give.
    fn move_work(&mut self, now: u64) -> bool {
        let busy = self.workers.iter().filter(|worker| !worker.given.is_empty()).count();
        let idle = self.workers.iter().any(|worker| {
            worker.takes_items() && worker.rest.is_none() && worker.given.len() < self.threads && (!worker.given.is_empty() || busy < self.processes)
        });
        if !idle {
            return false;
        }
        let candidates = self.workers.iter().enumerate().filter(|(_, worker)| worker.can_give_back());
        let Some((victim, waiting)) = candidates.map(|(at, worker)| (at, worker.not_begun())).max_by_key(|(_, waiting)| *waiting) else {
            return false;
        };
        let stalled = now.saturating_sub(self.workers[victim].progress.2) >= STALLED_NS;
        if waiting == 0 || !(stalled || self.pace.estimate(u64::from(waiting)) >= WORTH_TAKING_NS) {
            return false;
        }
        // All of it from one that is stuck, half of it from one that goes on.
        let keeps = if stalled { 0 } else { waiting / 2 };
        let worker = &self.workers[victim];
        let from = self.boundary(victim, worker.next_position - (waiting - keeps));
        from.is_some_and(|from| self.take_back(victim, from))
    }

    /// Where work can be taken back from: chunks that must stay together are not cut.
    fn boundary(&self, at: usize, from: u32) -> Option<u32> {
        let worker = &self.workers[at];
        let given = worker.given.iter().find(|given| given.end() > from)?;
        let chunk = &self.chunks[given.chunk as usize];
        if !self.jobs[chunk.job as usize].whole_chunks {
            return Some(from.max(given.position));
        }
        let mut starts = worker.given.iter().filter(|given| given.first == self.chunks[given.chunk as usize].first && given.done == 0);
        starts.find(|given| given.position >= from.max(worker.memory.status().claimed())).map(|given| given.position)
    }

    /// Takes everything from position `from` on back that has not begun; returns whether it got anything.
    pub(super) fn take_back(&mut self, at: usize, from: u32) -> bool {
        let worker = &mut self.workers[at];
        let first = worker.memory.status().revoke(from);
        if first >= worker.next_position {
            worker.memory.status().resume();
            return false;
        }
        // Orders are short and the ring keeps room for them.
        if worker.order(Kind::Resume, 0, &[]).unwrap_or(false) {
            worker.revoking = true;
            worker.show();
        } else {
            // The link is broken: the worker never gets another item and is ended by whoever finds out.
            worker.revoking = true;
        }
        let mut taken = Vec::new();
        taken.extend(worker.rest.take());
        while let Some(last) = worker.given.back_mut() {
            if last.end() <= first {
                break;
            }
            let keep = first.saturating_sub(last.position).max(last.done);
            taken.push(Piece { chunk: last.chunk, first: last.first + u64::from(keep), count: u64::from(last.count - keep) });
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
            if let Some(first) = first.filter(|_| self.workers[at].can_give_back())
                && let Some(from) = self.boundary(at, first)
            {
                self.take_back(at, from);
            }
        }
    }

    fn is_whole(&self, piece: Piece) -> bool {
        self.jobs[self.chunks[piece.chunk as usize].job as usize].whole_chunks
    }

    /// Whether the worker has the items just before `piece`, which must stay with it.
    fn has_beginning(&self, at: usize, piece: Piece) -> bool {
        let before = |given: &Given| given.chunk == piece.chunk && given.first + u64::from(given.count) == piece.first;
        self.is_whole(piece) && self.workers[at].given.back().is_some_and(before)
    }

    fn retire_if_due(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.state == State::Ready && worker.rest.is_none() && tasks_left(worker, self.settings.max_tasks_per_child) == 0 {
            worker.state = State::Retiring;
        }
    }

    fn end_if_corrupt<T>(&mut self, at: usize, outcome: Result<T, Corrupt>, now: u64) {
        if outcome.is_err() {
            self.order_end(at, Reason::BrokenLink, now);
        }
    }
}

/// How many more items the worker may be given.
fn tasks_left(worker: &Worker, max_tasks_per_child: u64) -> u64 {
    let most = if max_tasks_per_child == 0 { u64::from(MAX_POSITION) } else { max_tasks_per_child.min(u64::from(MAX_POSITION)) };
    most.saturating_sub(u64::from(worker.next_position))
}

impl Worker {
    fn takes_ahead(&self, level: usize) -> bool {
        // An idle worker was left so on purpose: the pool has as many busy ones as it may.
        !self.given.is_empty() && self.given.len() < level && self.takes_items() && self.rest.is_none()
    }

    fn takes_more_of_its_chunk(&self) -> bool {
        matches!(self.state, State::Ready | State::Retiring) && self.sending.is_none() && !self.revoking
    }

    /// Whether something can be taken back from it now.
    fn can_give_back(&self) -> bool {
        matches!(self.state, State::Ready | State::Retiring) && self.sending.is_none() && !self.revoking && !self.given.is_empty()
    }
}
