//! Gives a worker items, and takes back those that have not begun.

use farpool_link::MAX_POSITION;
use farpool_link::record::Kind;

use super::super::chunks::{Assignment, Piece};
use super::super::pace::Pace;
use super::super::round::Round;
use super::Worker;
use super::items::{STALLED_NS, STUCK_NS};
use super::life::Stage;

/// Less work than this, in nanoseconds, is not worth moving to another worker, which costs a wake-up.
const WORTH_TAKING_NS: f64 = 100_000.0;
/// Time for cancelled items to finish by themselves, which saves starting a new worker.
const CANCEL_GRACE_NS: u64 = 10_000_000;

/// The result of giving items to a worker.
#[derive(Clone, Copy, Debug)]
pub(in crate::pool) struct Taken {
    /// Whether the worker took any.
    pub(in crate::pool) any: bool,
    /// The items that it did not take. Other workers may get them.
    pub(in crate::pool) left: Option<Piece>,
    /// The worker has written invalid data into the shared memory.
    pub(in crate::pool) corrupt: bool,
}

impl Worker {
    /// Returns whether it takes items now.
    fn takes_items(&self) -> bool {
        self.life.stage() == Stage::Ready
            && !self.link.is_sending()
            && !self.items.is_revoking()
            && !self.lending.is_lent()
            && !self.lending.yields()
            && !self.items.has_rest()
    }

    /// Returns whether it takes items now, while it has fewer than `most` runs of items.
    pub(in crate::pool) fn takes_up_to(&self, most: usize) -> bool {
        self.items.runs() < most && self.takes_items()
    }

    /// Returns whether it takes items in advance, while it has fewer than `most` runs of items.
    pub(in crate::pool) fn takes_ahead(&self, most: usize) -> bool {
        // An idle worker was left idle on purpose: the pool already has the most busy workers it may have.
        self.items.runs() > 0 && self.takes_up_to(most)
    }

    /// Returns whether it takes more of the chunk whose rest is kept for it.
    pub(in crate::pool) fn takes_rest(&self) -> bool {
        self.items.has_rest() && self.life.works() && !self.link.is_sending() && !self.items.is_revoking()
    }

    /// Takes the rest of a chunk that is kept for it. The rest is to be given to it next.
    pub(in crate::pool) fn take_rest(&mut self) -> Option<Piece> {
        self.items.take_rest()
    }

    /// Gives it items, as many as it takes now.
    pub(in crate::pool) fn give(&mut self, assignment: &Assignment<'_>, round: &Round) -> Taken {
        let (piece, whole) = (assignment.piece, assignment.whole);
        let lifetime = most_items(round.settings.max_tasks_per_child);
        let most = if round.threads > 1 {
            1
        } else if whole {
            piece.count
        } else {
            piece.count.min(self.items.left_of(lifetime))
        };
        let given = self.link.give(assignment, self.items.next_position(), most);
        let count = given.unwrap_or(0);
        if count > 0 {
            self.items.push(assignment, count, round.now);
        }
        let left = Some(piece.after(u64::from(count))).filter(|left| left.count > 0);
        let left = left.filter(|left| !self.items.keep_rest(*left, whole));
        let most_chunks = round.settings.max_chunks_per_child;
        let had_its_chunks = most_chunks > 0 && self.items.chunks() >= most_chunks;
        if !self.items.has_rest() && (self.items.left_of(lifetime) == 0 || had_its_chunks) {
            self.retire();
        }
        Taken { any: count > 0, left, corrupt: given.is_err() }
    }

    /// Sends more of a large item. Returns false if it has written invalid data into the shared memory.
    pub(in crate::pool) fn send_more(&mut self, now: u64) -> bool {
        let sent = self.link.send_more();
        if sent == Ok(true) {
            self.items.progressed(now);
        }
        sent.is_ok()
    }

    /// Publishes what was written to it, and wakes it if it sleeps.
    pub(in crate::pool) fn publish(&mut self) {
        self.link.publish();
    }

    /// Tells it to forget the function of a job that has ended.
    pub(in crate::pool) fn forget_function(&mut self, job: u32) {
        self.link.forget_function(job);
    }

    // ---- taking back

    /// Returns whether items can be taken back from it. It need not have passed what was taken back before: items in
    /// front of that position can be taken, too.
    fn can_give_back(&self) -> bool {
        self.life.works() && self.items.runs() > 0
    }

    /// Takes back what has not begun from position `from` on, or from the next possible position: the last items first.
    /// `None` if nothing can be taken.
    pub(in crate::pool) fn take_back(&mut self, mut from: u32) -> Option<Vec<Piece>> {
        let status = self.link.status();
        let first = loop {
            let first = self.items.boundary(from, status)?;
            match status.revoke(first) {
                Ok(()) => break first,
                // It has begun more meanwhile: perhaps a chunk that must not be split now.
                Err(claimed) => from = claimed,
            }
        };
        // Orders are short and the ring reserves room for them. If there is none, the link is broken: the worker
        // gets no more items and is terminated when that is noticed.
        if self.items.begin_revoking() && self.link.order_or_defer(Kind::Resume, 0).unwrap_or(false) {
            self.link.publish();
        }
        Some(self.items.cut_off(first))
    }

    /// Takes back everything that it has not begun.
    pub(in crate::pool) fn take_back_all(&mut self) -> Vec<Piece> {
        let first = self.items.first().filter(|_| self.can_give_back() && !self.items.is_revoking());
        first.and_then(|first| self.take_back(first)).unwrap_or_default()
    }

    /// Takes back the items of a chunk that have not begun, and all items after them.
    pub(in crate::pool) fn take_back_chunk(&mut self, chunk: u32) -> Vec<Piece> {
        let first = self.items.first_of(chunk).filter(|_| self.can_give_back());
        first.and_then(|first| self.take_back(first)).unwrap_or_default()
    }

    /// Takes back its cancelled items that have not begun, with all items after them, and has those that run killed
    /// later. Returns the rest of a cancelled chunk that was kept for it, and the items that were taken back.
    pub(in crate::pool) fn cancel(
        &mut self,
        is_cancelled: impl Fn(u32) -> bool,
        now: u64,
    ) -> (Option<Piece>, Vec<Piece>) {
        let rest = self.items.mark_cancelled(is_cancelled);
        let Some(first) = self.items.first_cancelled() else { return (rest, Vec::new()) };
        let taken = if self.can_give_back() { self.take_back(first) } else { None };
        self.items.end_cancelled(now + CANCEL_GRACE_NS);
        (rest, taken.unwrap_or_default())
    }

    /// Decides whether it lends its slot. If it does, what it has not begun is taken back: the waiting item may wait
    /// for the very items after it.
    pub(in crate::pool) fn update_lending(&mut self, threads: usize) -> Vec<Piece> {
        let (items, status) = (&self.items, self.link.status());
        let may = self.life.works() && !items.is_idle();
        self.lending.update(may, status.waiting(), || items.running(status, threads), threads);
        if self.lending.is_lent() { self.take_back_unbegun() } else { Vec::new() }
    }

    /// Decides whether it leaves its slot to other pools: if `must`, and if it can. Returns whether it does, and what
    /// was taken back from it.
    pub(in crate::pool) fn yield_slot(&mut self, must: bool) -> (bool, Vec<Piece>) {
        let yields = must && self.life.stage() == Stage::Ready && self.runs();
        self.lending.set_yields(yields);
        (yields, if yields { self.take_back_unbegun() } else { Vec::new() })
    }

    /// Returns whether it was chosen to leave its slot to other pools.
    pub(in crate::pool) fn yields_slot(&self) -> bool {
        self.lending.yields()
    }

    fn take_back_unbegun(&mut self) -> Vec<Piece> {
        if self.items.not_begun(self.link.status()) > 0 { self.take_back_all() } else { Vec::new() }
    }

    // ---- moving

    /// Returns how many items should move from it to an idle worker, from which position on, and whether these are all
    /// that it has.
    pub(in crate::pool) fn surplus(&self, pace: &Pace, round: &Round) -> Option<(u32, u32, bool)> {
        let (items, status) = (&self.items, self.link.status());
        let (idle, not_begun) = (round.now.saturating_sub(items.progress_at()), items.not_begun(status));
        if not_begun == 0 || !self.can_give_back() {
            return None;
        }
        let (count, all) = if idle >= STUCK_NS {
            (not_begun, u64::from(not_begun) == items.outstanding())
        } else {
            let waiting = items.waiting(status, round.threads);
            // All waiting items move away from a long item. A worker that makes progress gives up half of them, unless
            // it has not yet passed what was taken back last.
            let count = match idle >= STALLED_NS {
                true => waiting,
                false if items.is_revoking() => 0,
                false if pace.estimate(u64::from(waiting)) >= WORTH_TAKING_NS => waiting.div_ceil(2),
                false => 0,
            };
            (count, false)
        };
        if count == 0 {
            return None;
        }
        Some((count, items.boundary(items.last(count), status)?, all))
    }

    /// Returns when items are due to move from it to an idle worker, and whether these are all that it has.
    pub(in crate::pool) fn time_to_move(&self, round: &Round) -> Option<(u64, bool)> {
        let (items, status) = (&self.items, self.link.status());
        let not_begun = items.not_begun(status);
        if not_begun == 0 || !self.can_give_back() {
            return None;
        }
        let waiting = items.waiting(status, round.threads);
        let (count, patience) = if waiting > 0 { (waiting, STALLED_NS) } else { (not_begun, STUCK_NS) };
        items.boundary(items.last(count), status)?;
        Some((items.progress_at() + patience, u64::from(count) == items.outstanding()))
    }

    /// Returns when it is replaced unless it makes progress, if items wait for it. `wanted`: items wait for any worker.
    pub(in crate::pool) fn time_to_replace(&self, wanted: bool, threads: usize) -> Option<u64> {
        if self.life.stage() != Stage::Ready || self.lending.is_lent() {
            return None;
        }
        self.items.replace_at(wanted, self.link.status(), threads)
    }

    /// Takes everything back from a stuck worker, which then retires, unless it has begun something meanwhile. Returns
    /// whether it retires, and what was taken back.
    ///
    /// A worker that runs an item never counts as stuck: only a timeout ends it.
    pub(in crate::pool) fn replace(&mut self) -> (bool, Vec<Piece>) {
        if self.items.runs() == 0 {
            return (self.retire(), Vec::new());
        }
        let taken = self.take_back(0).unwrap_or_default();
        let replaced = self.items.is_idle() && self.retire();
        (replaced, taken)
    }
}

/// Returns how many items a worker may run in its life.
fn most_items(max_tasks_per_child: u64) -> u64 {
    if max_tasks_per_child == 0 { u64::from(MAX_POSITION) } else { max_tasks_per_child.min(u64::from(MAX_POSITION)) }
}
