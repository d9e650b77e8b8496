//! Labels of agents, and what pools and jobs require of them.

/// A set of labels. Each is a number that the caller chose for it; the core does not know the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    // Sorted.
    numbers: Box<[u32]>,
}

impl Labels {
    /// Makes a set of these labels, in any order.
    pub fn new(labels: impl IntoIterator<Item = u32>) -> Self {
        let mut numbers: Vec<u32> = labels.into_iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self { numbers: numbers.into() }
    }

    /// Whether all of `others` are in the set.
    pub fn include(&self, others: &Self) -> bool {
        others.numbers.iter().all(|label| self.numbers.binary_search(label).is_ok())
    }

    /// Returns the labels, sorted.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.numbers.iter().copied()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Returns the labels of both sets.
    pub(crate) fn and(&self, others: &Self) -> Self {
        Self::new(self.iter().chain(others.iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_include_their_subsets() {
        let set = Labels::new([7, 1, 7, 3]);
        assert!(set.iter().eq([1, 3, 7]));
        for (others, included) in [(&[][..], true), (&[3], true), (&[7, 1], true), (&[2], false), (&[1, 2], false)] {
            assert_eq!(set.include(&Labels::new(others.iter().copied())), included, "{others:?}");
        }
        assert!(!Labels::default().include(&set) && Labels::default().include(&Labels::default()));
        assert_eq!(Labels::new([1]).and(&Labels::new([3, 1, 7])), set);
    }
}
