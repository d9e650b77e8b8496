//! The rate of events over the last seconds.

/// The length of a bucket is 2^30 ns, about a second, so that finding the bucket of a time needs no division.
const BUCKET_SHIFT: u32 = 30;
const BUCKET_SECONDS: f64 = (1u64 << BUCKET_SHIFT) as f64 / 1e9;
/// The one being filled, and five full ones.
const BUCKETS: usize = 6;

/// Counts of the last seconds, one per second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    counts: [u64; BUCKETS],
    // The number of the second being counted.
    current: u64,
    // The second of the first count.
    since: Option<u64>,
}

impl Rate {
    /// Counts events at this time, which is not before previous ones.
    #[inline]
    pub(crate) fn count(&mut self, events: u64, now: u64) {
        self.turn_to(now >> BUCKET_SHIFT);
        self.since.get_or_insert(self.current);
        self.counts[self.current as usize % BUCKETS] += events;
    }

    /// Returns events per second over the last five full seconds, or over as many as there were. If there was none,
    /// over the current one.
    pub(crate) fn per_second(&self, now: u64) -> f64 {
        let mut copy = self.clone();
        copy.turn_to(now >> BUCKET_SHIFT);
        let Some(since) = copy.since else { return 0.0 };
        let current = copy.current as usize % BUCKETS;
        let over = (copy.current - since).min(BUCKETS as u64 - 1);
        if over == 0 {
            return copy.counts[current] as f64 / BUCKET_SECONDS;
        }
        let counted: u64 = copy.counts.iter().sum::<u64>() - copy.counts[current];
        counted as f64 / (over as f64 * BUCKET_SECONDS)
    }

    #[inline]
    fn turn_to(&mut self, second: u64) {
        if second <= self.current {
            return;
        }
        for empty in self.current + 1..=second.min(self.current + BUCKETS as u64) {
            self.counts[empty as usize % BUCKETS] = 0;
        }
        self.current = second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << BUCKET_SHIFT;

    /// Events at seconds, and the expected rate at another second.
    fn check(events: &[(u64, u64)], at: u64, expected: f64) {
        let mut rate = Rate::default();
        for &(second, count) in events {
            rate.count(count, second * SECOND + 7);
        }
        let found = rate.per_second(at * SECOND + 9) * BUCKET_SECONDS;
        assert!((found - expected).abs() < 1e-9, "{events:?} at {at}: {found} and not {expected}");
    }

    #[test]
    fn the_last_seconds_count() {
        check(&[], 7, 0.0);
        check(&[(3, 10)], 3, 10.0);
        check(&[(3, 10)], 4, 10.0);
        check(&[(3, 10), (4, 20)], 4, 10.0);
        check(&[(3, 10), (4, 20)], 5, 15.0);
        check(&[(3, 10), (4, 20)], 8, 6.0);
        check(&[(3, 10), (4, 20)], 9, 4.0);
        check(&[(3, 10), (4, 20)], 10, 0.0);
        check(&[(3, 10), (4, 20)], 1_000_000, 0.0);
        check(&[(3, 10), (1000, 5)], 1000, 0.0);
        check(&[(3, 10), (1000, 5)], 1001, 1.0);
    }
}
