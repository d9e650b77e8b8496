//! The items that a worker was given, which of them have begun or finished, and how long they take.

use std::collections::VecDeque;

use farpool_link::{Corrupt, Status, clock};

use super::super::chunks::{Assignment, Piece};
use super::super::death::Reason;
use super::given::Given;
use super::receiving::Receiving;

/// A worker that neither began nor finished an item for this long runs a long one: the items behind it move.
pub(in crate::pool) const STALLED_NS: u64 = 500_000;
/// A worker that begins nothing for this long although it could is stuck: stopped, traced, or not scheduled. Its items
/// move.
pub(super) const STUCK_NS: u64 = 1_000_000_000;

/// The items of a worker.
#[derive(Debug)]
pub(super) struct Items {
    /// Its unfinished items, ordered by position.
    given: VecDeque<Given>,
    /// The rest of a chunk that must stay together, if it has the first part.
    rest: Option<Piece>,
    /// Position of its next item: the number of items that it was given so far.
    next_position: u32,
    /// The chunk of its latest items, and how many chunks it was given any items of so far.
    latest_chunk: Option<u32>,
    chunks: u64,
    /// Number of items that it has finished.
    finished: u64,
    /// Number of items that it had finished at its last measurement.
    measured: u64,
    /// Number of measurements that it has sent.
    run_ends: u64,
    /// A partially received large result.
    receiving: Option<Receiving>,
    /// Items were taken back, and it has not yet passed their position.
    revoking: bool,
    revoked_at: u64,
    /// When it is terminated for running cancelled items, unless it finishes them.
    cancel_at: Option<u64>,
    /// Items finished and claimed, as last observed.
    progress: (u64, u32),
    /// When these last changed, or when its time without progress began for another reason.
    progress_at: u64,
}

/// An item of a chunk: the chunk's key, and the index in the job.
pub(super) type Finished = (u32, u64);

/// Unfinished items that the worker was given together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Where they are among those that it was given.
    at: usize,
    /// The first of them.
    pub(super) item: Finished,
    pub(super) count: u32,
}

impl Items {
    pub(super) fn new(now: u64) -> Items {
        Items {
            given: VecDeque::new(),
            rest: None,
            next_position: 0,
            latest_chunk: None,
            chunks: 0,
            finished: 0,
            measured: 0,
            run_ends: 0,
            receiving: None,
            revoking: false,
            revoked_at: now,
            cancel_at: None,
            progress: (0, 0),
            progress_at: now,
        }
    }

    // ---- what it has

    /// Returns how many runs of items it has.
    pub(super) fn runs(&self) -> usize {
        self.given.len()
    }

    /// Returns whether it has no items, and none are kept for it.
    pub(super) fn is_idle(&self) -> bool {
        self.given.is_empty() && self.rest.is_none()
    }

    /// Returns whether the rest of a chunk is kept for it.
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    pub(super) fn finished(&self) -> u64 {
        self.finished
    }

    /// Returns whether items were taken back whose position it has not passed yet.
    pub(super) fn is_revoking(&self) -> bool {
        self.revoking
    }

    /// Returns whether it may still write about its items.
    pub(super) fn awaits_records(&self) -> bool {
        !self.given.is_empty() || self.revoking || self.measured != self.finished
    }

    /// Returns the number of its unfinished items.
    pub(super) fn outstanding(&self) -> u64 {
        self.given.iter().map(|given| u64::from(given.left())).sum()
    }

    /// Returns the number of its items that have not begun.
    pub(super) fn not_begun(&self, status: &Status) -> u32 {
        let claimed = status.claimed();
        self.given.iter().map(|given| given.end().saturating_sub(given.position.max(claimed))).sum()
    }

    /// Returns the number of items that wait behind running ones. The next ones that it will begin anyway do not count.
    pub(super) fn waiting(&self, status: &Status, threads: usize) -> u32 {
        let not_begun = self.not_begun(status);
        let begun = self.outstanding().saturating_sub(u64::from(not_begun));
        let free = u32::try_from((threads as u64).saturating_sub(begun)).unwrap_or(u32::MAX);
        not_begun.saturating_sub(free)
    }

    /// Returns whether it has begun any of its items.
    pub(super) fn has_begun(&self, status: &Status, threads: usize) -> bool {
        let claimed = status.claimed();
        self.given.iter().any(|given| given.next() < claimed) || self.running(status, threads).next().is_some()
    }

    /// Returns the positions of its running items. A finished item is not among them, even if its thread has not
    /// recorded yet that it is idle.
    pub(super) fn running(&self, status: &Status, threads: usize) -> impl Iterator<Item = u32> {
        status.running(threads).map(|item| item.position).filter(|position| self.given_at(*position).is_some())
    }

    fn given_at(&self, position: u32) -> Option<&Given> {
        let at = self.given.partition_point(|given| given.end() <= position);
        self.given.get(at).filter(|given| given.item_at(position).is_some())
    }

    // ---- giving

    /// Returns the position of the next item that it is given.
    pub(super) fn next_position(&self) -> u32 {
        self.next_position
    }

    /// Returns how many more items it may get if it may run `most`.
    pub(super) fn left_of(&self, most: u64) -> u64 {
        most.saturating_sub(u64::from(self.next_position))
    }

    /// Returns how many chunks it was given any items of so far.
    pub(super) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Records that it was given the first `count` items of an assignment.
    pub(super) fn push(&mut self, assignment: &Assignment<'_>, count: u32, now: u64) {
        if self.given.is_empty() {
            // Its time without progress counts from here: it was idle.
            self.progress_at = now;
        }
        let chunk = assignment.piece.chunk;
        // A new chunk may have the number of one that has ended.
        if assignment.begins_chunk || self.latest_chunk != Some(chunk) {
            self.chunks += 1;
        }
        self.latest_chunk = Some(chunk);
        self.given.push_back(Given {
            chunk,
            first: assignment.piece.first,
            count,
            position: self.next_position,
            done: 0,
            since: now,
            timeout_ns: assignment.timeout_ns,
            whole: assignment.whole,
            begins_chunk: assignment.begins_chunk,
            cancelled: assignment.cancelled,
        });
        self.next_position += count;
    }

    /// Keeps the rest of a chunk for it, if it has the items before and the chunk must stay together. Returns false if
    /// others may have the rest.
    pub(super) fn keep_rest(&mut self, rest: Piece, whole: bool) -> bool {
        let keeps = whole && self.given.back().is_some_and(|given| given.is_before(rest));
        if keeps {
            self.rest = Some(rest);
        }
        keeps
    }

    /// Takes the rest that is kept for it.
    pub(super) fn take_rest(&mut self) -> Option<Piece> {
        self.rest.take()
    }

    // ---- outcomes

    /// Marks the item at `position` as finished. Returns its chunk's key and its index in the job.
    pub(super) fn finish(&mut self, position: u32) -> Result<Finished, Corrupt> {
        let due = self.due(position)?;
        self.finish_run(due, 1);
        Ok(due.item)
    }

    /// Returns the unfinished items from `position` on that it was given together.
    #[inline]
    pub(super) fn due(&self, position: u32) -> Result<Due, Corrupt> {
        // Nearly always the first: only workers with several threads finish out of order.
        let is_due = |given: &&Given| given.next() == position && given.left() > 0;
        let (at, given) = match self.given.front().filter(is_due) {
            Some(first) => (0, first),
            None => self.given.iter().enumerate().find(|(_, given)| is_due(given)).ok_or(Corrupt)?,
        };
        Ok(Due { at, item: (given.chunk, given.index(position)), count: given.left() })
    }

    /// Marks the first `count` of these items as finished.
    #[inline]
    pub(super) fn finish_run(&mut self, due: Due, count: u32) {
        let at = due.at;
        let given = &mut self.given[at];
        given.done += count;
        if given.left() == 0 {
            if at == 0 {
                self.given.pop_front()
            } else {
                self.given.remove(at)
            };
        }
        self.finished += u64::from(count);
        self.cancel_at = self.cancel_at.filter(|_| !self.given.is_empty());
    }

    /// Records a measurement. Returns the number of items that it is about.
    pub(super) fn measure(&mut self) -> Result<u64, Corrupt> {
        self.run_ends += 1;
        // A run has at least one item.
        if self.run_ends > self.finished {
            return Err(Corrupt);
        }
        let items = self.finished.saturating_sub(self.measured);
        self.measured = self.finished;
        Ok(items)
    }

    /// Returns the large result that it receives, if it does.
    pub(super) fn receiving(&mut self) -> &mut Option<Receiving> {
        &mut self.receiving
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.receiving.is_some()
    }

    // ---- progress

    /// Looks for progress. Returns whether it has finished items since the last time.
    pub(super) fn observe(&mut self, status: &Status, now: u64) -> bool {
        let progress = (self.finished, status.claimed());
        let finished_any = progress.0 != self.progress.0;
        if progress != self.progress {
            (self.progress, self.progress_at) = (progress, now);
        }
        finished_any
    }

    /// Records that it makes progress in another way.
    pub(super) fn progressed(&mut self, now: u64) {
        self.progress_at = now;
    }

    /// Returns when its time without progress began.
    pub(super) fn progress_at(&self) -> u64 {
        self.progress_at
    }

    // ---- taking back

    /// Returns the position of its first unfinished item.
    pub(super) fn first(&self) -> Option<u32> {
        self.given.front().map(Given::next)
    }

    /// Returns the position of its first unfinished item of this chunk.
    pub(super) fn first_of(&self, chunk: u32) -> Option<u32> {
        self.given.iter().find(|given| given.chunk == chunk).map(Given::next)
    }

    /// Returns the position of its first unfinished item that is cancelled.
    pub(super) fn first_cancelled(&self) -> Option<u32> {
        self.given.iter().find(|given| given.cancelled).map(Given::next)
    }

    /// Returns the position where its last `items` items begin. Positions after them may have been taken back.
    pub(super) fn last(&self, items: u32) -> u32 {
        self.given.back().map_or(self.next_position, Given::end).saturating_sub(items)
    }

    /// Returns the first position, from `from` on, from which everything can be taken back. What has begun stays.
    /// Chunks that must stay together are not split, unless they are cancelled.
    pub(super) fn boundary(&self, from: u32, status: &Status) -> Option<u32> {
        let from = from.max(status.claimed());
        self.given.iter().filter(|given| given.end() > from).find_map(|given| {
            if given.cancelled || !given.whole {
                return Some(from.max(given.next()));
            }
            let begins = given.begins_chunk && given.done == 0 && given.position >= from;
            begins.then_some(given.position)
        })
    }

    /// Records that items are taken back. Returns false if it has not passed earlier ones yet.
    pub(super) fn begin_revoking(&mut self) -> bool {
        let begins = !std::mem::replace(&mut self.revoking, true);
        if begins {
            self.revoked_at = clock::now();
        }
        begins
    }

    /// Records that it has passed what was taken back. Returns false if nothing was.
    pub(super) fn end_revoking(&mut self) -> bool {
        std::mem::take(&mut self.revoking)
    }

    /// Removes what it has from position `first` on, and the rest that is kept for it: the last items first.
    pub(super) fn cut_off(&mut self, first: u32) -> Vec<Piece> {
        let mut taken = Vec::new();
        taken.extend(self.rest.take());
        while let Some(last) = self.given.back_mut() {
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
            self.given.pop_back();
        }
        taken
    }

    /// Returns when it counts as stuck unless it makes progress.
    fn stuck_at(&self) -> u64 {
        self.progress_at + STUCK_NS
    }

    /// Returns when it is replaced unless it makes progress. `wanted`: items wait for a worker.
    pub(super) fn replace_at(&self, wanted: bool, status: &Status, threads: usize) -> Option<u64> {
        if self.given.is_empty() {
            // It gets nothing until it has passed the items that were taken back.
            return (self.revoking && wanted).then_some(self.revoked_at + STUCK_NS);
        }
        // A chunk that must stay together does not move once it has begun.
        (!self.has_begun(status, threads) && self.boundary(0, status) == self.first()).then_some(self.stuck_at())
    }

    // ---- cancelling and timeouts

    /// Marks the items of cancelled chunks. Returns the rest that was kept for it, if it is cancelled, too.
    pub(super) fn mark_cancelled(&mut self, is_cancelled: impl Fn(u32) -> bool) -> Option<Piece> {
        for given in &mut self.given {
            given.cancelled = given.cancelled || is_cancelled(given.chunk);
        }
        self.rest.take_if(|rest| is_cancelled(rest.chunk))
    }

    /// Schedules its end at `at`, if it still has cancelled items.
    pub(super) fn end_cancelled(&mut self, at: u64) {
        if self.given.iter().any(|given| given.cancelled) {
            self.cancel_at = Some(at);
        }
    }

    /// Returns when it is terminated if it runs cancelled items.
    pub(super) fn cancel_at(&self) -> Option<u64> {
        self.cancel_at
    }

    /// Returns whether it runs a cancelled item.
    pub(super) fn runs_cancelled(&self, status: &Status, threads: usize) -> bool {
        let is_cancelled =
            |position| self.given.iter().any(|given| given.cancelled && given.item_at(position).is_some());
        status.running(threads).any(|item| is_cancelled(item.position))
    }

    /// Returns when the first of its items times out. `held`: its outcomes are not read.
    pub(super) fn first_timeout(&self, status: &Status, threads: usize, held: bool) -> Option<(u64, Reason)> {
        if self.given.iter().all(|given| given.timeout_ns == 0) {
            return None;
        }
        let running = status.running(threads).filter_map(|running| {
            let limit = self.given_at(running.position)?.timeout_ns;
            let due = running.since?.checked_add(limit)?;
            (limit > 0).then_some((due, Reason::TimedOut { position: running.position, limit }))
        });
        let first = running.min_by_key(|(due, _)| *due);
        // While outcomes are held, the agent does not know whether another item has begun.
        first.or_else(|| if held { None } else { self.first_timeout_of_next(status, threads) })
    }

    /// Returns the first timeout of the items that the worker should have begun, in case it was stopped.
    ///
    /// An item's time starts when it is among the next items that the worker's threads will begin. (For an item
    /// that has just begun, the worker may not have recorded the time yet.)
    fn first_timeout_of_next(&self, status: &Status, threads: usize) -> Option<(u64, Reason)> {
        let claimed = status.claimed();
        let has_begun = |given: &Given| given.next() < claimed;
        let any_begun = self.given.iter().any(has_begun);
        let mut left = threads as u64;
        let mut first: Option<(u64, Reason)> = None;
        for given in self.given.iter().filter(|given| !any_begun || has_begun(given)) {
            // Cancelled items are skipped: they are not the next ones.
            if given.cancelled {
                continue;
            }
            let limit = given.timeout_ns;
            let since = self.progress_at.max(given.since);
            if let Some(due) = since.checked_add(limit).filter(|_| limit > 0)
                && first.is_none_or(|(earlier, _)| due < earlier)
            {
                first = Some((due, Reason::TimedOut { position: given.next(), limit }));
            }
            left = left.saturating_sub(u64::from(given.left()));
            if left == 0 {
                break;
            }
        }
        first
    }

    // ---- its end

    /// Splits what an exited worker had into the items that ran, at the positions `running`, and all others. The last
    /// items come first.
    pub(super) fn split(mut self, running: &[u32]) -> (Vec<Victim>, Vec<Piece>) {
        let mut pieces: Vec<Piece> = self.rest.take().into_iter().collect();
        let mut victims = Vec::new();
        while let Some(given) = self.given.pop_back() {
            let mut end = given.end();
            for position in (given.next()..given.end()).rev().filter(|position| running.contains(position)) {
                pieces.extend(given.piece(position + 1, end));
                victims.push(Victim { chunk: given.chunk, item: given.index(position), position });
                end = position;
            }
            pieces.extend(given.piece(given.next(), end));
        }
        (victims, pieces)
    }
}

/// An item that ran when its worker died.
#[derive(Clone, Copy, Debug)]
pub(in crate::pool) struct Victim {
    pub(in crate::pool) chunk: u32,
    /// Its index in the job.
    pub(in crate::pool) item: u64,
    /// Its position in the worker's stream of items.
    pub(in crate::pool) position: u32,
}
