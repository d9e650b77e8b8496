use std::time::{Duration, Instant};

const MOST_ITEMS: u64 = 16_384;
const GROWTH: u64 = 8;

/// Chooses how many items the next batch should have.
///
/// The first batch is one item, so that a worker starts at once. Batches grow while the input is fast, and shrink when it
/// is slow: an item that was pulled must not wait long in a batch for the next one.
pub(super) struct Pace {
    items: u64,
    started: Option<Instant>,
}

impl Pace {
    const QUICK: Duration = Duration::from_micros(500);
    const SLOW: Duration = Duration::from_millis(2);

    pub(super) fn new() -> Self {
        Self { items: 1, started: None }
    }

    pub(super) fn items(&self) -> u64 {
        self.items
    }

    pub(super) fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Records that a batch of this many items was pulled since the start.
    pub(super) fn record_batch(&mut self, items: u64) {
        let Some(started) = self.started.take() else { return };
        self.adapt(items, started.elapsed());
    }

    fn adapt(&mut self, items: u64, took: Duration) {
        if took >= Self::SLOW {
            self.items = (self.items / GROWTH).max(1);
        } else if took <= Self::QUICK && items >= self.items {
            self.items = (self.items * GROWTH).min(MOST_ITEMS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_the_input_is_fast_and_shrink_when_it_is_slow() {
        let mut pace = Pace::new();
        let mut sizes = Vec::new();
        for _ in 0..7 {
            sizes.push(pace.items());
            pace.adapt(pace.items(), Duration::from_micros(10));
        }
        assert_eq!(sizes, [1, 8, 64, 512, 4096, 16_384, 16_384]);
        pace.adapt(16_384, Duration::from_millis(1));
        assert_eq!(pace.items(), 16_384);
        pace.adapt(100, Duration::from_millis(20));
        assert_eq!(pace.items(), 2048);
        for _ in 0..9 {
            pace.adapt(1, Duration::from_secs(1));
        }
        assert_eq!(pace.items(), 1);
    }

    #[test]
    fn a_batch_that_was_cut_short_does_not_grow_the_next() {
        let mut pace = Pace { items: 64, started: None };
        pace.adapt(3, Duration::ZERO);
        assert_eq!(pace.items(), 64);
    }
}
