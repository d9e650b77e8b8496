//! Gives workers the items that they run next.

use farpool_link::record::Kind;
use farpool_link::{Corrupt, MAX_POSITION};

use super::chunks::Piece;
use super::worker::{Given, State, Worker};
use super::{WorkerPool, death::Reason};

impl WorkerPool {
    /// Gives queued items to the workers, as far as they have room.
    pub(super) fn feed(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            self.workers[at].wants_room = false;
            if self.workers[at].sending.is_some() {
                let sent = self.workers[at].continue_sending();
                if sent == Ok(true) {
                    self.workers[at].progress.2 = now;
                }
                self.workers[at].wants_room = self.workers[at].sending.is_some();
                self.terminate_if_corrupt(at, sent, now);
            }
        }
        self.fill(now);
        if self.queue.is_empty() && self.move_work(now) {
            self.fill(now);
        }
        for worker in &mut self.workers {
            worker.publish();
        }
    }

    fn fill(&mut self, now: u64) {
        // The rest of a chunk that must stay together goes to the worker that has its start.
        for at in 0..self.workers.len() {
            while self.workers[at].rest.is_some()
                && self.workers[at].takes_more_of_its_chunk()
                && self.give_next(at, now)
            {}
        }
        // First each worker gets something, breadth first; then more in advance. No more workers run at once than the
        // pool may use. A retiring worker counts while it runs.
        let mut busy = self.running();
        for level in 1..=self.threads {
            for at in 0..self.workers.len() {
                if self.queue.is_empty() {
                    return;
                }
                let worker = &self.workers[at];
                let idle = worker.given.is_empty();
                if worker.given.len() >= level
                    || !worker.takes_items()
                    || worker.rest.is_some()
                    || (idle && busy >= self.may_run)
                {
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

    /// Gives a worker the next piece, or its first part. Returns false if the worker takes nothing now.
    fn give_next(&mut self, at: usize, now: u64) -> bool {
        let Some(piece) = self.workers[at].rest.take().or_else(|| self.queue.pop_front()) else { return false };
        let whole = self.is_whole(piece);
        let given = self.give(at, piece, now);
        let count = given.as_ref().copied().unwrap_or(0);
        let left =
            Piece { chunk: piece.chunk, first: piece.first + u64::from(count), count: piece.count - u64::from(count) };
        if left.count > 0 {
            if whole && count > 0 || self.has_beginning(at, left) {
                self.workers[at].rest = Some(left);
            } else {
                self.queue.push_front(left);
            }
        }
        self.retire_if_due(at);
        self.terminate_if_corrupt(at, given, now);
        count > 0
    }

    fn give(&mut self, at: usize, piece: Piece, now: u64) -> Result<u32, Corrupt> {
        let worker = &mut self.workers[at];
        let chunk = &self.chunks[piece.chunk as usize];
        let job = &self.jobs[chunk.job as usize];
        let Some(stretch) = chunk.stretch(piece.first) else { return Ok(0) };
        if !worker.known_functions.get(chunk.job as usize).copied().unwrap_or(false) {
            if !worker.order(Kind::Function, chunk.job, &job.function)? {
                worker.wants_room = true;
                return Ok(0);
            }
            if worker.known_functions.len() <= chunk.job as usize {
                worker.known_functions.resize(chunk.job as usize + 1, false);
            }
            worker.known_functions[chunk.job as usize] = true;
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
            if worker.given.is_empty() {
                // Its time without progress counts from here: it was idle.
                worker.progress.2 = now;
            }
            worker.given.push_back(Given {
                chunk: piece.chunk,
                first: piece.first,
                count,
                position,
                done: 0,
                since: now,
            });
        }
        Ok(count)
    }

    fn is_whole(&self, piece: Piece) -> bool {
        self.jobs[self.chunks[piece.chunk as usize].job as usize].whole_chunks
    }

    /// Returns whether the worker has the items just before `piece`, which must stay with it.
    fn has_beginning(&self, at: usize, piece: Piece) -> bool {
        let before = |given: &Given| given.chunk == piece.chunk && given.first + u64::from(given.count) == piece.first;
        self.is_whole(piece) && self.workers[at].given.back().is_some_and(before)
    }

    fn retire_if_due(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if worker.state == State::Ready
            && worker.rest.is_none()
            && tasks_left(worker, self.settings.max_tasks_per_child) == 0
        {
            worker.state = State::Retiring;
        }
    }

    fn terminate_if_corrupt<T>(&mut self, at: usize, outcome: Result<T, Corrupt>, now: u64) {
        if outcome.is_err() {
            self.terminate(at, Reason::BrokenLink, now);
        }
    }
}

/// Returns how many more items the worker may get.
fn tasks_left(worker: &Worker, max_tasks_per_child: u64) -> u64 {
    let most = if max_tasks_per_child == 0 {
        u64::from(MAX_POSITION)
    } else {
        max_tasks_per_child.min(u64::from(MAX_POSITION))
    };
    most.saturating_sub(u64::from(worker.next_position))
}

impl Worker {
    fn takes_ahead(&self, level: usize) -> bool {
        // An idle worker was left idle on purpose: the pool has as many busy ones as it may.
        !self.given.is_empty() && self.given.len() < level && self.takes_items() && self.rest.is_none()
    }

    fn takes_more_of_its_chunk(&self) -> bool {
        matches!(self.state, State::Ready | State::Retiring) && self.sending.is_none() && !self.revoking
    }
}
