//! The items of a chunk that the agent has finished.

use crate::run::{Run, Runs};

/// The marked items of a run: all below `next`, and those that came out of order above it.
///
/// A worker runs its items in order, so usually nothing is out of order and nothing is allocated.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    next: u64,
    later: Runs,
    left: u64,
}

impl Done {
    /// Marks nothing of `all`.
    pub(crate) fn none_of(all: Run) -> Self {
        Self { next: all.first, later: Runs::default(), left: all.count }
    }

    /// Marks all of `all` but these runs of it. They are sorted and not empty, and the first and the last lie at the
    /// ends of `all`.
    pub(crate) fn all_but(all: Run, left: &[Run]) -> Self {
        let mut done = Self::none_of(all);
        for pair in left.windows(2) {
            let marked = done.mark(all, pair[0].end(), pair[1].first - pair[0].end());
            debug_assert!(marked, "{pair:?} do not rise");
        }
        done
    }

    /// Marks `first .. first + count`, numbers that a peer may have made up. Returns false and changes nothing unless
    /// all of them are in `all` and unmarked.
    pub(crate) fn mark(&mut self, all: Run, first: u64, count: u64) -> bool {
        if !all.covers(first, count) || first < self.next {
            return false;
        }
        let run = Run::new(first, count);
        if first == self.next && self.later.is_empty() {
            self.next = run.end();
        } else if !self.later.insert(run) {
            return false;
        } else if let Some(joined) = self.later.pop_at(self.next) {
            self.next = joined.end();
        }
        self.left -= count;
        true
    }

    /// Returns how many items are not marked.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Returns the runs of unmarked items, lowest first.
    pub(crate) fn holes(&self, all: Run) -> impl Iterator<Item = Run> {
        let starts = std::iter::once(self.next).chain(self.later.iter().map(Run::end));
        let ends = self.later.iter().map(|run| run.first).chain(std::iter::once(all.end()));
        starts.zip(ends).map(|(start, end)| Run::new(start, end - start)).filter(|hole| hole.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks one run after another, each accepted or not, and compares the remaining holes.
    fn check(marks: &[(u64, u64, bool)], holes: &[(u64, u64)]) {
        let all = Run::new(10, 10);
        let mut done = Done::none_of(all);
        for &(first, count, fits) in marks {
            assert_eq!(done.mark(all, first, count), fits, "{first}+{count} into {done:?}");
        }
        let found: Vec<_> = done.holes(all).map(|hole| (hole.first, hole.count)).collect();
        assert_eq!(found, holes);
        assert_eq!(done.left(), holes.iter().map(|hole| hole.1).sum::<u64>());
    }

    #[test]
    fn items_can_be_marked_from_the_start() {
        let runs = |runs: &[(u64, u64)]| runs.iter().map(|&(first, count)| Run::new(first, count)).collect::<Vec<_>>();
        let all = Run::new(10, 10);
        for (left, holes) in [
            (&[(10, 10)][..], &[(10, 10)][..]),
            (&[(10, 1), (19, 1)], &[(10, 1), (19, 1)]),
            (&[(10, 3), (13, 2), (16, 4)], &[(10, 5), (16, 4)]),
        ] {
            let mut done = Done::all_but(all, &runs(left));
            assert_eq!(done.holes(all).collect::<Vec<_>>(), runs(holes));
            assert!(runs(left).into_iter().all(|run| done.mark(all, run.first, run.count)));
            assert_eq!(done.left(), 0);
        }
    }

    #[test]
    fn marks_and_holes() {
        check(&[], &[(10, 10)]);
        check(&[(10, 10, true)], &[]);
        check(&[(10, 4, true), (14, 6, true)], &[]);
        check(&[(12, 2, true)], &[(10, 2), (14, 6)]);
        check(&[(12, 2, true), (10, 2, true)], &[(14, 6)]);
        check(&[(12, 2, true), (18, 2, true), (10, 1, true)], &[(11, 1), (14, 4)]);
        check(&[(18, 2, true), (10, 8, true)], &[]);
        check(&[(10, 1, true), (10, 1, false)], &[(11, 9)]);
        check(&[(12, 2, true), (13, 2, false), (11, 2, false), (11, 9, false)], &[(10, 2), (14, 6)]);
        check(&[(9, 1, false), (20, 1, false), (19, 2, false), (u64::MAX, 1, false)], &[(10, 10)]);
        check(&[(10, 0, true), (20, 0, true), (15, 0, true)], &[(10, 10)]);
    }
}
