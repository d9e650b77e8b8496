//! Chooses chunk sizes for adaptive jobs.

/// Measured item times of a job, and the chunk size that follows from them.
///
/// The size starts at one item and grows until chunks fill the target. It never exceeds twice the number of items
/// measured in one chunk, so that a job whose items get slower has no chunk of thousands of them. Slower items shrink
/// the next chunk at once.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    // Worker time per item, a moving average; 0: not measured yet.
    item_ns: f64,
    // The longest time of an item, as far as reports tell items apart.
    slowest_ns: f64,
    size: u64,
}

/// Weight of a new measurement: after about four reports the old ones hardly count.
const WEIGHT: f64 = 0.25;

impl Default for Pace {
    fn default() -> Self {
        Self { item_ns: 0.0, slowest_ns: 0.0, size: 1 }
    }
}

impl Pace {
    /// Records that `items` took `busy_ns`. Including them, `covered` items of their chunk have been measured.
    pub(crate) fn measured(&mut self, items: u64, busy_ns: u64, covered: u64, target_ns: u64) {
        let sample = busy_ns as f64 / items as f64;
        self.item_ns = if self.item_ns == 0.0 { sample } else { self.item_ns + (sample - self.item_ns) * WEIGHT };
        self.slowest_ns = self.slowest_ns.max(sample);
        // `as` saturates, so neither a huge nor a tiny time overflows.
        let wanted = ((target_ns as f64 / self.item_ns) as u64).max(1);
        let proven = self.size.max(covered.saturating_mul(2));
        self.size = wanted.min(proven);
    }

    /// Returns the number of items for the next chunk when `queued` items remain for `slots`.
    ///
    /// A chunk is at most half of a slot's share of the rest. So each slot gets some, and the slots finish at about the
    /// same time.
    pub(crate) fn size(&self, queued: u64, slots: u64) -> u64 {
        self.size.min(queued.div_ceil(2 * slots)).max(1)
    }

    /// Returns the worker time that this many items are expected to take, if any were measured.
    pub(crate) fn expected_ns(&self, items: u64) -> Option<u64> {
        (self.item_ns > 0.0).then_some((self.item_ns * items as f64) as u64)
    }

    /// Returns the worker time that this many items are expected to take if one of them is as slow as the slowest so far.
    pub(crate) fn expected_at_most_ns(&self, items: u64) -> Option<u64> {
        let others = items.saturating_sub(1) as f64;
        (self.item_ns > 0.0).then_some((self.item_ns * others + self.slowest_ns.max(self.item_ns)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step: the time of an item, and the expected chunk size after a whole chunk at that pace.
    fn check(steps: &[(u64, u64)]) {
        let mut pace = Pace::default();
        let mut size = 1;
        for &(item_ns, expected) in steps {
            pace.measured(size, size * item_ns, size, 1000);
            size = pace.size(u64::MAX / 4, 1);
            assert_eq!(size, expected, "after {item_ns} ns an item: {pace:?}");
        }
    }

    #[test]
    fn grows_twofold_and_shrinks_at_once() {
        check(&[(10, 2), (10, 4), (10, 8), (10, 16), (10, 32), (10, 64), (10, 100), (10, 100)]);
        check(&[(10, 2), (10, 4), (10, 8), (4000, 1), (4000, 1)]);
        check(&[(5000, 1), (1, 1)]);
    }

    #[test]
    fn a_chunk_is_at_most_half_of_a_slots_share() {
        let pace = Pace { item_ns: 1.0, size: 1000, ..Pace::default() };
        for (queued, slots, expected) in [(100_000, 4, 1000), (800, 4, 100), (81, 4, 11), (8, 4, 1), (1, 4, 1)] {
            assert_eq!(pace.size(queued, slots), expected, "{queued} for {slots}");
        }
    }

    #[test]
    fn one_item_may_be_as_slow_as_the_slowest() {
        let mut pace = Pace::default();
        assert_eq!((pace.expected_ns(3), pace.expected_at_most_ns(3)), (None, None));
        for (items, busy_ns, one, four) in [(10, 1000, 100, 400), (1, 900, 900, 1800), (1, 100, 900, 1650)] {
            pace.measured(items, busy_ns, items, 1000);
            assert_eq!((pace.expected_at_most_ns(1), pace.expected_at_most_ns(4)), (Some(one), Some(four)));
        }
    }

    #[test]
    fn any_time_gives_a_valid_size() {
        for (items, busy_ns) in [(1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (1, 1)] {
            let mut pace = Pace::default();
            for _ in 0..100 {
                pace.measured(items, busy_ns, items, 1_000_000);
                assert!(pace.size(u64::MAX, 1) >= 1);
            }
        }
    }
}
