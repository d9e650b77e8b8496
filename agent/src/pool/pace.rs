//! How much a worker is given ahead.
//!
//! A worker that waits for its next chunk idles for a wake-up and back (60 us on a quiet machine); a chunk that was
//! given ahead cannot be cancelled for free and waits behind what runs. So: as much as hides that time and no
//! more, which is nothing at all for chunks that take longer than [`AHEAD_NS`].

/// Time that the chunks given ahead should last.
const AHEAD_NS: f64 = 1_000_000.0;
/// Most chunks that a worker holds.
const MOST: u32 = 512;
/// Items faster than this come in streams: their outcomes are collected together.
const QUICK_ITEM_NS: f64 = 20_000.0;

#[derive(Debug)]
pub(super) struct Pace {
    /// Moving average of what one run of items takes; `None` before the first.
    run_ns: Option<f64>,
    item_ns: Option<f64>,
    depth: u32,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { run_ns: None, item_ns: None, depth: 1 }
    }

    /// A run of so many items took so long.
    pub(super) fn measured(&mut self, items: u64, nanoseconds: u64) {
        #[expect(clippy::cast_precision_loss, reason = "an average does not need the last bits")]
        let (items, nanoseconds) = (items.max(1) as f64, nanoseconds.max(1) as f64);
        average(&mut self.run_ns, nanoseconds);
        average(&mut self.item_ns, nanoseconds / items);
        let wanted = 1.0 + AHEAD_NS / self.run_ns.unwrap_or(AHEAD_NS);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and MOST")]
        let wanted = wanted.min(f64::from(MOST)) as u32;
        // Twice as much at most in one step: the first measurements say little.
        self.depth = wanted.min(self.depth * 2);
    }

    /// Chunks that a worker holds at most, the one that runs included.
    pub(super) fn depth(&self) -> usize {
        self.depth as usize
    }

    /// Whether items are so quick that outcomes are better collected than told one by one.
    pub(super) fn is_quick(&self) -> bool {
        self.item_ns.is_some_and(|item| item < QUICK_ITEM_NS)
    }

    /// What so many items are likely to take, in nanoseconds.
    pub(super) fn estimate(&self, items: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate does not need the last bits")]
        let items = items as f64;
        items * self.item_ns.unwrap_or(AHEAD_NS)
    }
}

fn average(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + (value - mean) / 4.0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_chunks_are_given_ahead_and_slow_ones_are_not() {
        let mut pace = Pace::new();
        assert_eq!(pace.depth(), 1, "nothing is known yet");
        let mut before = 1;
        for _ in 0..20 {
            pace.measured(1, 300);
            assert!(pace.depth() <= 2 * before);
            before = pace.depth();
        }
        assert_eq!(pace.depth(), MOST as usize);
        assert!(pace.is_quick());
        pace.measured(1, 50_000_000);
        assert_eq!(pace.depth(), 1, "one long item is enough to stop giving ahead");
        assert!(!pace.is_quick());
    }
}
