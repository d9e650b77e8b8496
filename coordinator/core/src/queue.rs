//! The items of a job that wait to be handed out.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;

use crate::run::Run;

/// Items that have arrived and were never handed out, and items that were returned. They are kept as runs, so a single
/// item costs nothing, and a chunk is cut only when an agent takes it.
#[derive(Default)]
pub(crate) struct Queue {
    fresh: VecDeque<Run>,
    // Returned items by first index. They go before fresh ones: the client waits for the lowest index, and the job
    // nears its end.
    requeued: BTreeMap<u64, Requeued>,
    items: u64,
    // Of all these items, assumed to be equally large.
    bytes: u64,
    item_bytes: u64,
    // One above the highest index that has arrived.
    frontier: u64,
    // A chunk that ends here need not wait for more items.
    resent_to: u64,
    ended: bool,
}

struct Requeued {
    count: u64,
    // The next attempt number of the first item; the others are at their first.
    attempt: u32,
}

/// The items to hand out next; `attempt` is that of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) run: Run,
    pub(crate) attempt: u32,
}

impl Queue {
    /// Adds new items; their indices are above all that arrived before.
    pub(crate) fn arrive(&mut self, run: Run, bytes: u64) {
        assert!(!self.ended, "items arrived after the end of the input");
        assert!(run.first >= self.frontier, "item {} arrived after item {}", run.first, self.frontier - 1);
        match self.fresh.back_mut() {
            Some(last) if last.end() == run.first => last.count += run.count,
            _ => self.fresh.push_back(run),
        }
        self.frontier = run.end();
        self.add(run.count, bytes);
    }

    /// No more items will arrive.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// All unfinished items of a previous scheduler have arrived, so a chunk that lacks later items may be complete.
    pub(crate) fn all_resent(&mut self) {
        self.resent_to = self.frontier;
    }

    /// Adds items that were handed out and returned; `attempt` is the next attempt number of the first, and `bytes` are
    /// theirs.
    pub(crate) fn give_back(&mut self, run: Run, attempt: u32, bytes: u64) {
        self.add(run.count, bytes);
        let (mut first, mut count) = (run.first, run.count);
        // An item that is retried stays separate: no other item should wait behind one that killed a worker.
        if attempt == 1 {
            if let Some(behind) = self.requeued.get(&run.end()).filter(|behind| behind.attempt == 1) {
                count += behind.count;
                self.requeued.remove(&run.end());
            }
            if let Some((&before, run_before)) = self.requeued.range(..run.first).next_back()
                && before + run_before.count == run.first
                && run_before.attempt == 1
            {
                first = before;
                count += run_before.count;
            }
        }
        self.requeued.insert(first, Requeued { count, attempt });
    }

    /// Returns the longest piece that could be handed out next. With a chunk size it is one whole chunk, or as much of
    /// it as there can be.
    #[inline]
    pub(crate) fn next(&self, chunksize: Option<NonZeroU64>) -> Option<Piece> {
        let piece = match self.requeued.first_key_value() {
            Some((&first, requeued)) => Piece { run: Run::new(first, requeued.count), attempt: requeued.attempt },
            None => Piece { run: *self.fresh.front()?, attempt: 1 },
        };
        let Some(size) = chunksize else { return Some(piece) };
        let run = piece.run;
        // Chunks of a job lie on a grid, so returned items fall into the same chunks again.
        let room = size.get() - run.first % size;
        if run.count >= room {
            return Some(Piece { run: Run::new(run.first, room), ..piece });
        }
        // Not full. It never will be if its next item was left out, is elsewhere, or will not come.
        let more_may_come = run.end() == self.frontier && !self.ended && run.end() != self.resent_to;
        if more_may_come { None } else { Some(piece) }
    }

    /// Removes the first `count` items of what [`next`](Self::next) returned.
    #[inline]
    pub(crate) fn take(&mut self, count: u64) {
        self.items -= count;
        self.bytes = self.bytes.saturating_sub(self.item_bytes * count);
        if let Some(entry) = self.requeued.first_entry() {
            let (first, rest) = (*entry.key(), entry.get().count - count);
            entry.remove();
            if rest > 0 {
                self.requeued.insert(first + count, Requeued { count: rest, attempt: 1 });
            }
            return;
        }
        let front = self.fresh.front_mut().expect("something was next");
        *front = Run::new(front.first + count, front.count - count);
        if front.count == 0 {
            self.fresh.pop_front();
        }
    }

    /// If all these items are queued, returns the next attempt number of the first; the others must be at their first.
    pub(crate) fn next_try_of(&self, run: Run) -> Option<u32> {
        let mut attempt = 1;
        let mut at = run.first;
        while at < run.end() {
            if let Some((&first, requeued)) = self.requeued.range(..=at).next_back()
                && first + requeued.count > at
            {
                if first == at && requeued.attempt > 1 {
                    if at > run.first {
                        return None;
                    }
                    attempt = requeued.attempt;
                }
                at = first + requeued.count;
            } else {
                let fresh = self.fresh.get(self.fresh_behind(at).checked_sub(1)?)?;
                if fresh.end() <= at {
                    return None;
                }
                at = fresh.end();
            }
        }
        Some(attempt)
    }

    /// Removes these items, which are all queued.
    pub(crate) fn take_out(&mut self, run: Run) {
        self.items -= run.count;
        self.bytes = self.bytes.saturating_sub(self.item_bytes * run.count);
        let mut at = run.first;
        while at < run.end() {
            let found = self.requeued.range(..=at).next_back().filter(|(first, requeued)| *first + requeued.count > at);
            if let Some((&first, &Requeued { count, attempt })) = found {
                let (end, to) = (first + count, run.end().min(first + count));
                self.requeued.remove(&first);
                for (first, end, attempt) in [(first, at, attempt), (to, end, 1)] {
                    if first < end {
                        self.requeued.insert(first, Requeued { count: end - first, attempt });
                    }
                }
                at = to;
            } else {
                let place = self.fresh_behind(at) - 1;
                let fresh = self.fresh[place];
                let (end, to) = (fresh.end(), run.end().min(fresh.end()));
                match (fresh.first < at, to < end) {
                    (false, false) => drop(self.fresh.remove(place)),
                    (false, true) => self.fresh[place] = Run::new(to, end - to),
                    (true, rest) => {
                        self.fresh[place] = Run::new(fresh.first, at - fresh.first);
                        if rest {
                            self.fresh.insert(place + 1, Run::new(to, end - to));
                        }
                    }
                }
                at = to;
            }
        }
    }

    /// Returns the queued parts of the run, lowest first.
    pub(crate) fn queued_of(&self, run: Run) -> Vec<Run> {
        let requeued = self.requeued.iter().map(|(&first, requeued)| Run::new(first, requeued.count));
        let mut parts: Vec<Run> =
            requeued.chain(self.fresh.iter().copied()).filter_map(|there| there.common(run)).collect();
        parts.sort_unstable_by_key(|part| part.first);
        parts
    }

    /// Removes and returns all runs, lowest first.
    pub(crate) fn take_all(&mut self) -> Vec<Run> {
        let requeued =
            std::mem::take(&mut self.requeued).into_iter().map(|(first, requeued)| Run::new(first, requeued.count));
        let mut all: Vec<Run> = requeued.chain(self.fresh.drain(..)).collect();
        all.sort_unstable_by_key(|run| run.first);
        (self.items, self.bytes) = (0, 0);
        all
    }

    // The number of fresh runs that begin at `index` or below.
    fn fresh_behind(&self, index: u64) -> usize {
        self.fresh.partition_point(|run| run.first <= index)
    }

    /// Returns how many items are queued.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    /// Returns the average bytes of one of them.
    #[inline]
    pub(crate) fn item_bytes(&self) -> u64 {
        self.item_bytes
    }

    fn add(&mut self, items: u64, bytes: u64) {
        self.items += items;
        self.bytes = self.bytes.saturating_add(bytes);
        self.item_bytes = self.bytes.div_ceil(self.items);
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Checks that the runs are in order and the count is right.
    pub(crate) fn check(&self) {
        let fresh = self.fresh.iter().copied();
        let requeued = self.requeued.iter().map(|(&first, requeued)| Run::new(first, requeued.count));
        let total: u64 = fresh.clone().chain(requeued.clone()).map(|run| run.count).sum();
        assert_eq!(total, self.items, "the count of queued items is wrong");
        assert!(self.fresh.iter().zip(self.fresh.iter().skip(1)).all(|(a, b)| a.end() < b.first));
        assert!(requeued.clone().zip(requeued.clone().skip(1)).all(|(a, b)| a.end() <= b.first));
        assert!(fresh.chain(requeued).all(|run| run.count > 0 && run.end() <= self.frontier));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Step {
        Arrive(u64, u64),
        End,
        Back(u64, u64, u32),
        /// Takes at most this many, and expects first, count and attempt, or no next piece.
        Take(u64, Option<(u64, u64, u32)>),
        Resent,
        /// Takes these out, if all are queued, and expects this next attempt number for the first.
        Out(u64, u64, Option<u32>),
        All(&'static [(u64, u64)]),
    }
    use Step::*;

    fn check(chunksize: u64, steps: &[Step]) {
        let chunksize = NonZeroU64::new(chunksize);
        let mut queue = Queue::default();
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Arrive(first, count) => queue.arrive(Run::new(first, count), count),
                End => queue.end(),
                Resent => queue.all_resent(),
                Out(first, count, expected) => {
                    let attempt = queue.next_try_of(Run::new(first, count));
                    assert_eq!(attempt, expected, "step {at}");
                    if attempt.is_some() {
                        queue.take_out(Run::new(first, count));
                    }
                }
                All(expected) => {
                    let all: Vec<_> = queue.take_all().into_iter().map(|run| (run.first, run.count)).collect();
                    assert_eq!((&all[..], queue.items()), (expected, 0));
                }
                Back(first, count, attempt) => queue.give_back(Run::new(first, count), attempt, count),
                Take(most, expected) => {
                    let piece = queue.next(chunksize);
                    let taken = piece.map(|piece| (piece.run.first, piece.run.count.min(most), piece.attempt));
                    assert_eq!(taken, expected, "step {at}");
                    if let Some((_, count, _)) = taken {
                        queue.take(count);
                    }
                }
            }
            queue.check();
        }
    }

    #[test]
    fn items_are_removed_only_if_all_are_queued() {
        check(0, &[Arrive(0, 9), Out(3, 2, Some(1)), Out(2, 2, None), Out(4, 3, None), Take(9, Some((0, 3, 1)))]);
        check(0, &[Arrive(0, 9), Out(0, 2, Some(1)), Out(7, 2, Some(1)), Out(9, 1, None), Take(9, Some((2, 5, 1)))]);
        check(0, &[Arrive(0, 3), Arrive(5, 3), Out(2, 4, None), Out(0, 3, Some(1)), Out(5, 3, Some(1)), Take(9, None)]);
        // After items were taken out from the end, further items arrive as usual.
        check(0, &[Arrive(0, 3), Out(2, 1, Some(1)), Arrive(3, 1), Take(9, Some((0, 2, 1))), Take(9, Some((3, 1, 1)))]);
        // The same for returned items; only the first may have been tried.
        let back = [Arrive(0, 9), Take(6, Some((0, 6, 1))), Back(0, 2, 1), Back(2, 1, 3), Back(3, 3, 2)];
        let then = |steps: Vec<Step>| check(0, &back.iter().copied().chain(steps).collect::<Vec<_>>());
        then(vec![Out(1, 2, None), Out(2, 2, None), Out(2, 1, Some(3)), Out(3, 6, Some(2)), Take(9, Some((0, 2, 1)))]);
        then(vec![Out(4, 1, Some(1)), Take(9, Some((0, 2, 1))), Out(2, 1, Some(3)), Take(9, Some((3, 1, 2)))]);
        then(vec![Out(1, 1, Some(1)), Out(4, 4, Some(1)), All(&[(0, 1), (2, 1), (3, 1), (8, 1)]), Take(9, None)]);
        then(vec![All(&[(0, 2), (2, 1), (3, 3), (6, 3)]), Arrive(9, 1), Take(9, Some((9, 1, 1)))]);
    }

    #[test]
    fn after_a_resend_the_last_chunk_may_be_short() {
        check(4, &[Arrive(0, 1), Take(9, None), Resent, Take(9, Some((0, 1, 1))), Arrive(5, 1), Take(9, None)]);
        check(4, &[Arrive(0, 1), Resent, Arrive(1, 1), Take(9, None), Arrive(2, 2), Take(9, Some((0, 4, 1)))]);
    }

    #[test]
    fn an_adaptive_chunk_takes_what_has_arrived() {
        check(0, &[Take(9, None), Arrive(0, 3), Arrive(3, 3), Take(4, Some((0, 4, 1))), Take(4, Some((4, 2, 1)))]);
        check(0, &[Arrive(0, 2), Arrive(5, 3), Take(9, Some((0, 2, 1))), Take(9, Some((5, 3, 1))), Take(9, None)]);
    }

    #[test]
    fn an_explicit_chunk_waits_until_it_is_whole() {
        check(4, &[Arrive(0, 3), Take(9, None), Arrive(3, 3), Take(9, Some((0, 4, 1))), Take(9, None)]);
        check(4, &[Arrive(0, 3), End, Take(9, Some((0, 3, 1))), Take(9, None)]);
        // Item 2 was left out: the chunk ends before it, and another one begins after it.
        check(4, &[Arrive(0, 2), Arrive(3, 6), Take(9, Some((0, 2, 1))), Take(9, Some((3, 1, 1)))]);
        check(4, &[Arrive(3, 6), Take(9, Some((3, 1, 1))), Take(9, Some((4, 4, 1))), Take(9, None)]);
    }

    #[test]
    fn returned_items_go_first_and_join() {
        check(0, &[Arrive(0, 9), Take(6, Some((0, 6, 1))), Back(4, 2, 1), Back(2, 2, 1), Take(9, Some((2, 4, 1)))]);
        check(
            4,
            &[
                Arrive(0, 12),
                Take(9, Some((0, 4, 1))),
                Take(9, Some((4, 4, 1))),
                Back(4, 4, 1),
                Back(0, 4, 1),
                Take(9, Some((0, 4, 1))),
                Take(9, Some((4, 4, 1))),
                Take(9, Some((8, 4, 1))),
            ],
        );
        check(4, &[Arrive(0, 4), Take(9, Some((0, 4, 1))), Back(1, 2, 1), Take(9, Some((1, 2, 1))), Take(9, None)]);
    }

    #[test]
    fn retried_items_stay_separate() {
        check(
            0,
            &[
                Arrive(0, 6),
                Take(6, Some((0, 6, 1))),
                Back(3, 1, 2),
                Back(4, 2, 1),
                Back(1, 2, 1),
                Take(9, Some((1, 2, 1))),
                Take(9, Some((3, 1, 2))),
                Take(9, Some((4, 2, 1))),
                Take(9, None),
            ],
        );
        check(
            0,
            &[
                Arrive(0, 4),
                Take(4, Some((0, 4, 1))),
                Back(0, 4, 2),
                Take(2, Some((0, 2, 2))),
                Take(9, Some((2, 2, 1))),
            ],
        );
    }
}
