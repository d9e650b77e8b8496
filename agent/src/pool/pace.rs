//! Decides how much a worker is given in advance.
//!
//! A worker that waits for its next chunk idles for a round trip of wake-ups (60 us on an idle machine). A chunk given
//! in advance is costly to cancel and waits behind what runs. So a worker gets just enough to hide the round trip:
//! nothing in advance for chunks that take longer than [`AHEAD_NS`].

/// Time that the chunks given in advance should last.
const AHEAD_NS: f64 = 1_000_000.0;
/// Most chunks that a worker may hold.
const MAX_CHUNKS: u32 = 512;
/// Outcomes of items faster than this are collected together.
const QUICK_ITEM_NS: f64 = 20_000.0;

#[derive(Debug)]
pub(super) struct Pace {
    /// Moving average of the time of one run of items; `None` before the first.
    run_ns: Option<f64>,
    item_ns: Option<f64>,
    depth: u32,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { run_ns: None, item_ns: None, depth: 1 }
    }

    /// Records how long a run of items took.
    pub(super) fn measured(&mut self, items: u64, nanoseconds: u64) {
        #[expect(clippy::cast_precision_loss, reason = "an average does not need the last bits")]
        let (items, nanoseconds) = (items.max(1) as f64, nanoseconds.max(1) as f64);
        average(&mut self.run_ns, nanoseconds);
        average(&mut self.item_ns, nanoseconds / items);
        let wanted = 1.0 + AHEAD_NS / self.run_ns.unwrap_or(AHEAD_NS);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and MAX_CHUNKS")]
        let wanted = wanted.min(f64::from(MAX_CHUNKS)) as u32;
        // At most doubles in one step: the first measurements are unreliable.
        self.depth = wanted.min(self.depth * 2);
    }

    /// Returns the most chunks that a worker may hold, including the one that runs.
    pub(super) fn depth(&self) -> usize {
        self.depth as usize
    }

    /// Returns whether items are so quick that their outcomes are better reported together.
    pub(super) fn is_quick(&self) -> bool {
        self.item_ns.is_some_and(|item| item < QUICK_ITEM_NS)
    }

    /// Estimates how long items take, in nanoseconds.
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
        assert_eq!(pace.depth(), MAX_CHUNKS as usize);
        assert!(pace.is_quick());
        pace.measured(1, 50_000_000);
        assert_eq!(pace.depth(), 1, "one long item is enough to stop giving ahead");
        assert!(!pace.is_quick());
    }
}
