//! Runs of consecutive indices, and sets of them.

/// The indices `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The lowest index.
    pub first: u64,
    /// How many there are.
    pub count: u64,
}

impl Run {
    /// Makes the run `first .. first + count`, which must not overflow.
    pub fn new(first: u64, count: u64) -> Self {
        debug_assert!(first.checked_add(count).is_some());
        Self { first, count }
    }

    /// One above the highest index.
    pub fn end(self) -> u64 {
        self.first + self.count
    }

    /// Returns the indices that are in both, if there are any.
    pub(crate) fn common(self, other: Self) -> Option<Self> {
        let (first, end) = (self.first.max(other.first), self.end().min(other.end()));
        (first < end).then(|| Self::new(first, end - first))
    }

    /// Whether `first .. first + count`, which a peer may have made up, lies within this run.
    pub fn covers(self, first: u64, count: u64) -> bool {
        first >= self.first && first - self.first <= self.count && count <= self.count - (first - self.first)
    }
}

/// A set of indices, kept as the fewest runs that cover it. Small if indices arrive nearly in order.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    // Sorted; none is empty, and none touches the next.
    runs: Vec<Run>,
}

impl Runs {
    /// Adds `run`. Returns false and changes nothing if some of it was in the set already.
    pub fn insert(&mut self, run: Run) -> bool {
        if run.count == 0 {
            return true;
        }
        let at = self.runs.partition_point(|held| held.first < run.first);
        let joins_before = match at.checked_sub(1).map(|before| self.runs[before].end()) {
            Some(end) if end > run.first => return false,
            end => end == Some(run.first),
        };
        let joins_after = match self.runs.get(at).map(|after| after.first) {
            Some(first) if first < run.end() => return false,
            first => first == Some(run.end()),
        };
        match (joins_before, joins_after) {
            (true, true) => {
                self.runs[at - 1].count += run.count + self.runs[at].count;
                self.runs.remove(at);
            }
            (true, false) => self.runs[at - 1].count += run.count,
            (false, true) => self.runs[at] = Run::new(run.first, run.count + self.runs[at].count),
            (false, false) => self.runs.insert(at, run),
        }
        true
    }

    /// Whether `index` is in the set.
    pub fn contains(&self, index: u64) -> bool {
        let behind = self.runs.partition_point(|held| held.first <= index);
        behind > 0 && self.runs[behind - 1].end() > index
    }

    /// Removes the lowest run if it starts at `first`.
    pub(crate) fn pop_at(&mut self, first: u64) -> Option<Run> {
        if self.runs.first()?.first == first { Some(self.runs.remove(0)) } else { None }
    }

    /// Removes the lowest run.
    pub fn pop_first(&mut self) -> Option<Run> {
        (!self.runs.is_empty()).then(|| self.runs.remove(0))
    }

    /// Returns the runs, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().copied()
    }

    /// Returns the number of runs in the set.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn runs_are_a_set() {
        // Every short run in a small space, in a scattered order, compared with a plain set.
        let mut runs = Runs::default();
        let mut set = BTreeSet::new();
        for step in 0..400u64 {
            let run = Run::new(step * 37 % 64, step * 11 % 4);
            let fresh = (run.first..run.end()).all(|index| !set.contains(&index));
            assert_eq!(runs.insert(run), fresh, "{run:?} into {runs:?}");
            if fresh {
                set.extend(run.first..run.end());
            }
            assert!((0..70).all(|index| runs.contains(index) == set.contains(&index)));
            assert!(runs.runs.windows(2).all(|pair| pair[0].end() < pair[1].first), "{runs:?}");
        }
        for index in 0..70 {
            let _ = runs.insert(Run::new(index, 1));
        }
        assert!(runs.iter().eq([Run::new(0, 70)]), "{runs:?}");
        assert_eq!((runs.pop_first(), runs.pop_first()), (Some(Run::new(0, 70)), None));
    }

    #[test]
    fn common_part_of_two_runs() {
        let run = Run::new(10, 5);
        for (first, count, common) in
            [(0, 10, None), (15, 3, None), (0, 11, Some((10, 1))), (12, 2, Some((12, 2))), (14, 9, Some((14, 1)))]
        {
            let other = Run::new(first, count);
            let expected = common.map(|(first, count)| Run::new(first, count));
            assert_eq!((run.common(other), other.common(run)), (expected, expected), "{first}+{count}");
        }
    }

    #[test]
    fn covers_takes_any_numbers() {
        let run = Run::new(10, 5);
        for (first, count, covered) in [
            (10, 5, true),
            (12, 3, true),
            (15, 0, true),
            (9, 2, false),
            (12, 4, false),
            (16, 0, false),
            (u64::MAX, 1, false),
            (10, u64::MAX, false),
            (0, u64::MAX, false),
        ] {
            assert_eq!(run.covers(first, count), covered, "{first}+{count}");
        }
    }
}
