//! The items of a chunk that have no outcome yet.

/// A set of items that began as one run. Runs are removed from it, usually from its front, which costs a subtraction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Items {
    /// The first run: its start, and one above its last item.
    head: (u64, u64),
    /// The others, in order; none is empty.
    more: Vec<(u64, u64)>,
}

impl Items {
    /// Creates the set of `count` items from `first` on; `None` if the numbers overflow.
    pub(super) fn new(first: u64, count: u64) -> Option<Items> {
        Some(Items { head: (first, first.checked_add(count)?), more: Vec::new() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head.0 == self.head.1
    }

    /// Removes items as far as they are in the set. Returns false if not all of them were.
    pub(super) fn remove(&mut self, first: u64, count: u64) -> bool {
        if count == 0 {
            return true;
        }
        let end = first.saturating_add(count);
        if self.head.0 == first && end <= self.head.1 {
            self.head.0 = end;
            if self.is_empty() && !self.more.is_empty() {
                self.head = self.more.remove(0);
            }
            return true;
        }
        let all = self.runs().any(|(from, to)| from <= first && end <= to);
        let left: Vec<(u64, u64)> = self
            .runs()
            .flat_map(|(from, to)| [(from, to.min(first)), (from.max(end), to)])
            .filter(|(from, to)| from < to)
            .collect();
        match left.split_first() {
            Some((&head, more)) => (self.head, self.more) = (head, more.to_vec()),
            None => *self = Items::default(),
        }
        all
    }

    /// Returns the remaining runs: the start of each, and one above its last item.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        std::iter::once(self.head).filter(|(from, to)| from < to).chain(self.more.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_items_that_were_not_removed_remain(removed in prop::collection::vec((0..40_u64, 0..9_u64), 0..20)) {
            let mut items = Items::new(10, 20).expect("cannot count the items");
            let mut model: BTreeSet<u64> = (10..30).collect();
            for (first, count) in removed {
                let all = (first..first + count).all(|item| model.contains(&item));
                prop_assert_eq!(items.remove(first, count), all);
                model.retain(|item| !(first..first + count).contains(item));
                let left: Vec<u64> = items.runs().flat_map(|(from, to)| from..to).collect();
                prop_assert!(left.iter().eq(&model), "{items:?}");
                prop_assert_eq!(items.is_empty(), model.is_empty());
                let runs: Vec<_> = items.runs().collect();
                prop_assert!(runs.iter().all(|(from, to)| from < to));
                prop_assert!(runs.windows(2).all(|two| two[0].1 <= two[1].0));
            }
        }
    }

    #[test]
    fn overflowing_sets_are_rejected() {
        assert_eq!(Items::new(u64::MAX, 1), None);
        assert!(Items::new(u64::MAX, 0).expect("an empty set cannot overflow").is_empty());
    }
}
