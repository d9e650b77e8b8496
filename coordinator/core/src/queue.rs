//! The items of a job that are nowhere yet.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;

use crate::run::Run;

/// What has arrived and was never handed out, and what came back; kept as runs, so an item costs nothing and a
/// chunk is cut only when an agent takes it.
#[derive(Default)]
pub(crate) struct Queue {
    fresh: VecDeque<Run>,
    // By first index. Goes before what is fresh: somebody waits for the lowest index, and a job nears its end.
    again: BTreeMap<u64, Again>,
    items: u64,
    // Of all these items, taken to have the same each.
    bytes: u64,
    item_bytes: u64,
    // One behind the highest index that has arrived.
    frontier: u64,
    // What ends here need not wait for more.
    resent_to: u64,
    ended: bool,
}

struct Again {
    count: u64,
    // Which try comes next for the first item; the others are at their first.
    attempt: u32,
}

/// The piece that comes next; `attempt` is that of its first item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) run: Run,
    pub(crate) attempt: u32,
}

impl Queue {
    /// New items; their indices are above all that arrived before.
    pub(crate) fn arrive(&mut self, run: Run, bytes: u64) {
        assert!(!self.ended, "items arrived behind the end of the input");
        assert!(run.first >= self.frontier, "item {} arrived behind item {}", run.first, self.frontier);
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

    /// What has arrived is what is left of more, so a chunk that lacks items behind it may be whole.
    pub(crate) fn all_resent(&mut self) {
        self.resent_to = self.frontier;
    }

    /// Items that were handed out and come back; `attempt` is the next try of the first, and `bytes` are theirs.
    pub(crate) fn give_back(&mut self, run: Run, attempt: u32, bytes: u64) {
        self.add(run.count, bytes);
        let (mut first, mut count) = (run.first, run.count);
        // An item that is tried again stays by itself: nobody should wait behind what has killed a worker.
        if attempt == 1 {
            if let Some(behind) = self.again.get(&run.end()).filter(|behind| behind.attempt == 1) {
                count += behind.count;
                self.again.remove(&run.end());
            }
            if let Some((&before, run_before)) = self.again.range(..run.first).next_back()
                && before + run_before.count == run.first
                && run_before.attempt == 1
            {
                first = before;
                count += run_before.count;
            }
        }
        self.again.insert(first, Again { count, attempt });
    }

    /// The longest piece that could be handed out next. With a chunk size it is one whole chunk, or what can still
    /// come of one.
    #[inline]
    pub(crate) fn next(&self, chunksize: Option<NonZeroU64>) -> Option<Piece> {
        let piece = match self.again.first_key_value() {
            Some((&first, again)) => Piece { run: Run::new(first, again.count), attempt: again.attempt },
            None => Piece { run: *self.fresh.front()?, attempt: 1 },
        };
        let Some(size) = chunksize else { return Some(piece) };
        let run = piece.run;
        // Chunks of a job lie on a grid, so what comes back falls into the same chunks again.
        let room = size.get() - run.first % size;
        if run.count >= room {
            return Some(Piece { run: Run::new(run.first, room), ..piece });
        }
        // Not full. It never will be if its next item was left out, is elsewhere, or will not come.
        let more_may_come = run.end() == self.frontier && !self.ended && run.end() != self.resent_to;
        if more_may_come { None } else { Some(piece) }
    }

    /// Takes the first `count` items of what [`next`](Self::next) gave.
    #[inline]
    pub(crate) fn take(&mut self, count: u64) {
        self.items -= count;
        self.bytes = self.bytes.saturating_sub(self.item_bytes * count);
        if let Some(entry) = self.again.first_entry() {
            let (first, rest) = (*entry.key(), entry.get().count - count);
            entry.remove();
            if rest > 0 {
                self.again.insert(first + count, Again { count: rest, attempt: 1 });
            }
            return;
        }
        let front = self.fresh.front_mut().expect("something was next");
        *front = Run::new(front.first + count, front.count - count);
        if front.count == 0 {
            self.fresh.pop_front();
        }
    }

    /// If all these items are there, which try comes next for the first; the others must be at their first.
    pub(crate) fn next_try_of(&self, run: Run) -> Option<u32> {
        let mut attempt = 1;
        let mut at = run.first;
        while at < run.end() {
            if let Some((&first, again)) = self.again.range(..=at).next_back()
                && first + again.count > at
            {
                if first == at && again.attempt > 1 {
                    if at > run.first {
                        return None;
                    }
                    attempt = again.attempt;
                }
                at = first + again.count;
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

    /// Takes these items out, which are all there.
    pub(crate) fn take_out(&mut self, run: Run) {
        self.items -= run.count;
        self.bytes = self.bytes.saturating_sub(self.item_bytes * run.count);
        let mut at = run.first;
        while at < run.end() {
            let found = self.again.range(..=at).next_back().filter(|(first, again)| *first + again.count > at);
            if let Some((&first, &Again { count, attempt })) = found {
                let (end, to) = (first + count, run.end().min(first + count));
                self.again.remove(&first);
                for (first, end, attempt) in [(first, at, attempt), (to, end, 1)] {
                    if first < end {
                        self.again.insert(first, Again { count: end - first, attempt });
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

    /// What of the run is there, lowest first.
    pub(crate) fn queued_of(&self, run: Run) -> Vec<Run> {
        let again = self.again.iter().map(|(&first, again)| Run::new(first, again.count));
        let mut parts: Vec<Run> =
            again.chain(self.fresh.iter().copied()).filter_map(|there| there.common(run)).collect();
        parts.sort_unstable_by_key(|part| part.first);
        parts
    }

    /// All runs that are there, lowest first; nothing is left.
    pub(crate) fn take_all(&mut self) -> Vec<Run> {
        let again = std::mem::take(&mut self.again).into_iter().map(|(first, again)| Run::new(first, again.count));
        let mut all: Vec<Run> = again.chain(self.fresh.drain(..)).collect();
        all.sort_unstable_by_key(|run| run.first);
        (self.items, self.bytes) = (0, 0);
        all
    }

    // How many fresh runs begin at `index` or below.
    fn fresh_behind(&self, index: u64) -> usize {
        self.fresh.partition_point(|run| run.first <= index)
    }

    /// How many items there are.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    /// Bytes of one of them, on average.
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

    /// That the runs are in order and the count is right.
    pub(crate) fn check(&self) {
        let fresh = self.fresh.iter().copied();
        let again = self.again.iter().map(|(&first, again)| Run::new(first, again.count));
        let total: u64 = fresh.clone().chain(again.clone()).map(|run| run.count).sum();
        assert_eq!(total, self.items, "the count of queued items is wrong");
        assert!(self.fresh.iter().zip(self.fresh.iter().skip(1)).all(|(a, b)| a.end() < b.first));
        assert!(again.clone().zip(again.clone().skip(1)).all(|(a, b)| a.end() <= b.first));
        assert!(fresh.chain(again).all(|run| run.count > 0 && run.end() <= self.frontier));
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
        /// Takes at most so many and expects first, count and attempt; or that nothing is next.
        Take(u64, Option<(u64, u64, u32)>),
        Resent,
        /// Takes these out if they are there, with this as the next try of the first.
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
    fn items_are_taken_out_if_all_are_there() {
        check(0, &[Arrive(0, 9), Out(3, 2, Some(1)), Out(2, 2, None), Out(4, 3, None), Take(9, Some((0, 3, 1)))]);
        check(0, &[Arrive(0, 9), Out(0, 2, Some(1)), Out(7, 2, Some(1)), Out(9, 1, None), Take(9, Some((2, 5, 1)))]);
        check(0, &[Arrive(0, 3), Arrive(5, 3), Out(2, 4, None), Out(0, 3, Some(1)), Out(5, 3, Some(1)), Take(9, None)]);
        // Behind what is taken out from the end, items arrive as ever.
        check(0, &[Arrive(0, 3), Out(2, 1, Some(1)), Arrive(3, 1), Take(9, Some((0, 2, 1))), Take(9, Some((3, 1, 1)))]);
        // Among what came back, too; only the first may have been tried.
        let back = [Arrive(0, 9), Take(6, Some((0, 6, 1))), Back(0, 2, 1), Back(2, 1, 3), Back(3, 3, 2)];
        let then = |steps: Vec<Step>| check(0, &back.iter().copied().chain(steps).collect::<Vec<_>>());
        then(vec![Out(1, 2, None), Out(2, 2, None), Out(2, 1, Some(3)), Out(3, 6, Some(2)), Take(9, Some((0, 2, 1)))]);
        then(vec![Out(4, 1, Some(1)), Take(9, Some((0, 2, 1))), Out(2, 1, Some(3)), Take(9, Some((3, 1, 2)))]);
        then(vec![Out(1, 1, Some(1)), Out(4, 4, Some(1)), All(&[(0, 1), (2, 1), (3, 1), (8, 1)]), Take(9, None)]);
        then(vec![All(&[(0, 2), (2, 1), (3, 3), (6, 3)]), Arrive(9, 1), Take(9, Some((9, 1, 1)))]);
    }

    #[test]
    fn what_was_sent_again_is_what_is_left() {
        check(4, &[Arrive(0, 1), Take(9, None), Resent, Take(9, Some((0, 1, 1))), Arrive(5, 1), Take(9, None)]);
        check(4, &[Arrive(0, 1), Resent, Arrive(1, 1), Take(9, None), Arrive(2, 2), Take(9, Some((0, 4, 1)))]);
    }

    #[test]
    fn adaptive_takes_what_is_there() {
        check(0, &[Take(9, None), Arrive(0, 3), Arrive(3, 3), Take(4, Some((0, 4, 1))), Take(4, Some((4, 2, 1)))]);
        check(0, &[Arrive(0, 2), Arrive(5, 3), Take(9, Some((0, 2, 1))), Take(9, Some((5, 3, 1))), Take(9, None)]);
    }

    #[test]
    fn explicit_waits_for_whole_chunks() {
        check(4, &[Arrive(0, 3), Take(9, None), Arrive(3, 3), Take(9, Some((0, 4, 1))), Take(9, None)]);
        check(4, &[Arrive(0, 3), End, Take(9, Some((0, 3, 1))), Take(9, None)]);
        // Item 2 was left out: the chunk ends in front of it and another begins behind.
        check(4, &[Arrive(0, 2), Arrive(3, 6), Take(9, Some((0, 2, 1))), Take(9, Some((3, 1, 1)))]);
        check(4, &[Arrive(3, 6), Take(9, Some((3, 1, 1))), Take(9, Some((4, 4, 1))), Take(9, None)]);
    }

    #[test]
    fn what_comes_back_goes_first_and_joins() {
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
    fn what_is_tried_again_stays_by_itself() {
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
