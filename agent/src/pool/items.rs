//! Moves items: from the queue to the workers, from worker to worker, and back as outcomes.
//!
//! The amount read in one turn is bounded, so that a worker that writes without end delays no other.

use farpool_link::clock;
use farpool_link::record::HEADER_BYTES;
use farpool_link::{Corrupt, RING_BYTES};

use super::WorkerPool;
use super::chunks::Chunk;
use super::death::Reason;
use super::results::RunResults;
use super::worker::Record;

/// Most records of one worker that are read in a turn.
const MAX_RECORDS: u32 = 16 << 10;
/// Most bytes of one worker that are read in a turn.
const MAX_BYTES: u64 = RING_BYTES as u64;
/// Most records that a ring can hold.
const MAX_RING_RECORDS: u32 = (RING_BYTES / HEADER_BYTES) as u32;

impl WorkerPool {
    // ---- outcomes

    /// Reads what the workers have written, up to a bound for each. [`WorkerPool::arm`] reports whether there is more.
    pub(crate) fn collect_all(&mut self, now: u64) {
        self.round.now = now;
        if self.round.held {
            // Their items may wait for items of other pools, which are not held.
            return (0..self.crew.len()).for_each(|at| self.update_lending(at));
        }
        for at in 0..self.crew.len() {
            if self.crew[at].may_have_records() {
                let outcome = self.collect(at, MAX_RECORDS);
                self.terminate_if_corrupt(at, outcome.is_err());
            }
        }
    }

    /// Reads what an exited worker has written.
    pub(super) fn collect_remaining(&mut self, at: usize) {
        // A corrupt record is ignored, with all that follows.
        let _ = self.collect(at, MAX_RING_RECORDS);
    }

    /// Reads up to `records` records of one worker.
    fn collect(&mut self, at: usize, records: u32) -> Result<(), Corrupt> {
        let before = self.crew[at].consumed();
        let outcome = self.crew[at].begin_reading().and_then(|()| self.read_records(at, records));
        let finished = self.crew[at].end_reading(before, outcome.is_err(), self.round.now);
        if let Some(requested_at) = finished {
            self.starts.item_finished(requested_at);
        }
        self.update_lending(at);
        outcome
    }

    /// Decides whether a worker lends its slot.
    fn update_lending(&mut self, at: usize) {
        if self.crew.may_lend() {
            let taken = self.crew.update_lending(at, self.round.threads);
            self.work.queue_in_front(taken);
        }
    }

    fn read_records(&mut self, at: usize, records: u32) -> Result<(), Corrupt> {
        let WorkerPool { crew, work, pace, starts, round, .. } = self;
        let worker = &mut crew[at];
        let number = worker.number();
        let until = worker.consumed() + MAX_BYTES;
        let mut left = records;
        while left > 0 && worker.consumed() < until {
            let Some(record) = worker.next_record(round)? else { break };
            let mut read = 1;
            match record {
                Record::Done(first) => {
                    let take = |results: &mut RunResults<'_>| worker.take_results(first, left, results);
                    read = work.done(number, first.item(), first.failed(), &mut round.report, take)?;
                }
                Record::DoneInPieces { item, result, failed } => {
                    work.done_in_pieces(item, result, failed, &mut round.report);
                }
                Record::Failed { item, failure } => work.failed(item, *failure, &mut round.report),
                Record::Measured { items, nanoseconds } => {
                    pace.measured(items, nanoseconds);
                    round.report.measured(number, nanoseconds);
                }
                Record::Ready => starts.worker_ready(),
                Record::Applied => {}
            }
            left -= read;
        }
        Ok(())
    }

    // ---- giving items

    /// Gives queued items to the workers, as far as they have room.
    pub(super) fn feed(&mut self) {
        self.forget_functions();
        for at in 0..self.crew.len() {
            let sound = self.crew[at].send_more(self.round.now);
            self.terminate_if_corrupt(at, !sound);
        }
        if self.work.write(&self.round.host) {
            self.fill();
            if self.work.queue_is_empty() && self.move_work() {
                self.fill();
            }
        } else {
            self.needs_another_round = true;
        }
        self.crew.publish();
    }

    fn fill(&mut self) {
        // The rest of a chunk that must stay together goes to the worker that has its start.
        for at in 0..self.crew.len() {
            while self.crew[at].takes_rest() && self.give_next(at) {}
        }
        // First each worker gets something, breadth first; then more in advance. No more workers run at once than the
        // pool may use. A retiring worker counts while it runs.
        let mut busy = self.crew.running();
        for level in 1..=self.round.threads {
            for at in 0..self.crew.len() {
                if self.work.queue_is_empty() {
                    return;
                }
                let idle = self.crew[at].runs_of_items() == 0;
                if !self.crew[at].takes_up_to(level) || (idle && busy >= self.quota.may_run()) {
                    continue;
                }
                if self.give_next(at) && idle {
                    busy += 1;
                }
            }
        }
        let total = self.work.queued() + self.crew.runs_of_items();
        let ahead = self.pace.depth() - 1;
        let level = (self.round.threads + ahead).min(total.div_ceil(busy.max(1)));
        for at in 0..self.crew.len() {
            while !self.work.queue_is_empty() && self.crew[at].takes_ahead(level) && self.give_next(at) {}
        }
    }

    /// Gives a worker the next piece, or its first part. Returns false if the worker takes nothing now.
    fn give_next(&mut self, at: usize) -> bool {
        let worker = &mut self.crew[at];
        let Some(piece) = worker.take_rest().or_else(|| self.work.next()) else { return false };
        let Some(assignment) = self.work.assignment(piece) else {
            self.work.put_back(piece);
            return false;
        };
        let taken = worker.give(&assignment, &self.round);
        if let Some(left) = taken.left {
            self.work.put_back(left);
        }
        self.terminate_if_corrupt(at, taken.corrupt);
        taken.any
    }

    /// Tells the workers to forget the functions of jobs that are over.
    pub(super) fn forget_functions(&mut self) {
        while let Some(job) = self.work.next_over() {
            self.crew.forget_function(job);
        }
    }

    // ---- taking items back

    /// Moves work that has not begun from a busy worker to an idle one. Returns whether anything was taken.
    fn move_work(&mut self) -> bool {
        let next = self.crew.next_move(self.quota.may_run(), &self.pace, &self.round);
        let Some((victim, from)) = next else { return false };
        let taken = self.crew[victim].take_back(from);
        let any = taken.is_some();
        self.work.queue_in_front(taken.unwrap_or_default());
        any
    }

    /// Returns when work is due to move to an idle worker.
    pub(super) fn time_to_move(&self) -> Option<u64> {
        if self.round.held || !self.work.queue_is_empty() {
            return None;
        }
        self.crew.time_to_move(self.quota.may_run(), &self.round)
    }

    /// Replaces stuck workers whose items no other worker is free to take: those that make no progress although they
    /// run nothing. They were stopped, are traced, or are not scheduled.
    ///
    /// Their items move to a free worker ([`WorkerPool::move_work`]). If none is free, a replacement is started; the
    /// stuck worker is told to exit, and is terminated if it does not.
    pub(super) fn replace_stuck(&mut self) {
        if self.round.held {
            return;
        }
        for at in 0..self.crew.len() {
            let due = self.crew[at].time_to_replace(!self.work.queue_is_empty(), self.round.threads);
            if due.is_some_and(|due| self.round.now >= due) {
                let (replaced, taken) = self.crew[at].replace();
                self.work.queue_in_front(taken);
                self.needs_another_round |= replaced;
            }
        }
    }

    /// Returns when the next worker is due to be replaced.
    pub(super) fn time_to_replace(&self) -> Option<u64> {
        if self.round.held {
            return None;
        }
        self.crew.time_to_replace(!self.work.queue_is_empty(), self.round.threads)
    }

    /// Cancels chunks: drops their queued items and ends those that run.
    pub(super) fn cancel(&mut self, unwanted: impl Fn(&Chunk) -> bool) {
        self.round.now = clock::now();
        if !self.work.cancel(unwanted) {
            return;
        }
        let work = &self.work;
        let (rests, taken) = self.crew.cancel(|chunk| work.is_cancelled(chunk), self.round.now);
        self.work.drop_pieces(rests);
        self.work.queue_in_front(taken);
        self.work.drop_cancelled();
    }

    fn terminate_if_corrupt(&mut self, at: usize, corrupt: bool) {
        if corrupt {
            self.terminate(at, Reason::BrokenLink);
        }
    }
}
