use std::collections::BTreeMap;

/// A set of item indices, as runs of consecutive ones. Its memory depends on the number of runs, not of items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    // First index -> one above the last. Runs neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl Runs {
    /// Returns the number of items.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns first index and count of each run, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(&first, &end)| (first, end - first))
    }

    /// Whether all items from `first` to below `end` are in it.
    pub fn covers(&self, first: u64, end: u64) -> bool {
        first >= end || self.runs.range(..=first).next_back().is_some_and(|(_, &last)| last >= end)
    }

    /// Whether one of the items from `first` to below `end` is in it.
    pub fn touches(&self, first: u64, end: u64) -> bool {
        first < end && self.runs.range(..end).next_back().is_some_and(|(_, &last)| last > first)
    }

    /// Returns the runs of items that are not in it, below `end`.
    pub fn gaps(&self, end: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let starts = self.runs.keys().copied().take_while(move |&first| first < end).chain([end]);
        let ends = [0].into_iter().chain(self.runs.values().copied());
        ends.zip(starts).filter(|(from, to)| from < to).map(|(from, to)| (from, to - from))
    }

    /// Returns the first run of items that are not in it, from `first` to below `end`: its first index and count.
    pub fn gap(&self, first: u64, end: u64) -> Option<(u64, u64)> {
        let before = self.runs.range(..=first).next_back().map_or(first, |(_, &last)| last.max(first));
        let to = self.runs.range(before..).next().map_or(end, |(&next, _)| next.min(end));
        (before < to).then(|| (before, to - before))
    }

    /// Adds the items from `first` to below `end`, and returns how many of them are new.
    pub fn insert(&mut self, first: u64, end: u64) -> u64 {
        let (mut from, mut to, before) = (first, end, self.count);
        if first >= end {
            return 0;
        }
        self.count += end - first;
        // Runs that overlap or touch are joined with it.
        while let Some((&at, &last)) = self.runs.range(..=to).next_back().filter(|&(_, &last)| last >= from) {
            self.runs.remove(&at);
            self.count -= last.min(end).saturating_sub(at.max(first));
            (from, to) = (from.min(at), to.max(last));
        }
        self.runs.insert(from, to);
        self.count - before
    }

    /// Returns first index and count of each run, flattened.
    pub(crate) fn flat(&self) -> Vec<u64> {
        self.iter().flat_map(|(first, count)| [first, count]).collect()
    }
}

/// From first indices and counts.
impl FromIterator<(u64, u64)> for Runs {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(runs: T) -> Self {
        let mut all = Self::default();
        for (first, count) in runs {
            all.insert(first, first + count);
        }
        all
    }
}

/// Returns the runs from flattened first indices and counts, without impossible ones.
pub(crate) fn pairs(flat: &[u64]) -> impl Iterator<Item = (u64, u64)> + '_ {
    flat.chunks_exact(2).filter_map(|pair| Some((pair[0], pair[0].checked_add(pair[1])?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(pieces in prop::collection::vec((0..60u64, 0..12u64), 0..24), first in 0..70u64, count in 0..9u64) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (first, count) in pieces {
                let before = set.len();
                set.extend(first..first + count);
                prop_assert_eq!(runs.insert(first, first + count), (set.len() - before) as u64);
                prop_assert_eq!(runs.count(), set.len() as u64);
            }
            let listed: Vec<u64> = runs.iter().flat_map(|(first, count)| first..first + count).collect();
            prop_assert_eq!(&listed, &set.iter().copied().collect::<Vec<_>>());
            let gaps: Vec<u64> = runs.gaps(65).flat_map(|(first, count)| first..first + count).collect();
            prop_assert_eq!(gaps, (0..65).filter(|at| !set.contains(at)).collect::<Vec<_>>());
            let end = first + count;
            prop_assert_eq!(runs.covers(first, end), (first..end).all(|at| set.contains(&at)));
            prop_assert_eq!(runs.touches(first, end), (first..end).any(|at| set.contains(&at)));
            let missing: Vec<u64> = (first..end).filter(|at| !set.contains(at)).collect();
            let run = missing.iter().zip(missing.first().copied().unwrap_or(0)..).take_while(|(at, next)| *at == next);
            prop_assert_eq!(runs.gap(first, end), missing.first().map(|&at| (at, run.count() as u64)));
            let starts: Vec<u64> = runs.iter().map(|(first, _)| first).collect();
            prop_assert!(runs.iter().all(|(first, count)| !starts.contains(&(first + count))), "runs that touch are one");
            let mut again = Runs::default();
            pairs(&runs.flat()).for_each(|(first, end)| _ = again.insert(first, end));
            prop_assert_eq!(again, runs);
        }
    }
}
