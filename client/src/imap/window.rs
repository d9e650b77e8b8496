use std::time::{Duration, Instant};

/// The number of items that the input may be ahead of the consumer.
///
/// Without a `buffersize` it starts at a few items per slot, and doubles whenever the consumer uses it up within [`MOMENT`]: tiny
/// items need thousands in flight to keep workers busy, while a few long items are enough.
pub(crate) struct Window {
    items: u64,
    /// Upper bound.
    most: u64,
    /// The number of slots that the bounds follow; `None` with a `buffersize`.
    slots: Option<u32>,
    /// Items in a chunk, if that was set; otherwise 0.
    chunksize: u64,
    /// Outcomes taken since it last grew, or since `since`.
    taken: u64,
    since: Option<Instant>,
}

/// Twice what a slot holds, and as much again in transit to and from its worker.
const ITEMS_A_SLOT: u64 = 4;
/// The most items that a worker is ever given ahead, when items are tiny.
const MOST_ITEMS_A_SLOT: u64 = 512;
const SMALL: u64 = 64;
/// A window that is used up faster than this is too small.
const MOMENT: Duration = Duration::from_millis(50);

impl Window {
    pub(crate) fn new(buffersize: Option<u64>, chunksize: u64, slots: u32) -> Self {
        let (items, most) = match buffersize {
            Some(items) => (items, items),
            None => Self::bounds(chunksize, slots),
        };
        let slots = buffersize.is_none().then_some(slots);
        Self { items, most, slots, chunksize, taken: 0, since: None }
    }

    /// Returns the window's initial size and its bound.
    fn bounds(chunksize: u64, slots: u32) -> (u64, u64) {
        let slots = u64::from(slots.max(1));
        let items = slots.saturating_mul(ITEMS_A_SLOT).saturating_mul(chunksize.max(1));
        (items, items.max(slots.saturating_mul(MOST_ITEMS_A_SLOT)))
    }

    /// Adapts to a new number of slots. The window keeps its size, as far as that is within the new bounds.
    pub(super) fn follow(&mut self, slots: u32) {
        if self.slots.is_some_and(|known| known != slots) {
            let (least, most) = Self::bounds(self.chunksize, slots);
            self.items = self.items.clamp(least, most);
            self.most = most;
            self.slots = Some(slots);
        }
    }

    /// Returns how many more items may be pulled if this many are ahead.
    pub(super) fn room(&self, ahead: u64) -> u64 {
        self.items.saturating_sub(ahead)
    }

    /// Returns whether to pull before the consumer has to wait. One item at a time would lock the session for each.
    pub(super) fn is_due(&self, ahead: u64) -> bool {
        self.room(ahead) >= (self.items / 4).max(1)
    }

    /// Returns whether to pull when the consumer has to wait.
    pub(super) fn is_due_before_waiting(&self, ahead: u64) -> bool {
        // In a small window, each missing item may be an idle worker. And an incomplete chunk does not run.
        self.is_due(ahead) || self.items <= SMALL || ahead < self.chunksize
    }

    /// Records that the consumer has taken an outcome.
    #[inline]
    pub(super) fn note_taken(&mut self) {
        self.taken += 1;
        if self.taken >= self.items && self.items < self.most {
            self.grow_if_quick(Instant::now());
        }
    }

    /// Records that the first items are being pulled.
    pub(super) fn start(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn grow_if_quick(&mut self, now: Instant) {
        let since = self.since.replace(now);
        self.taken = 0;
        if since.is_some_and(|since| now.duration_since(since) < MOMENT) {
            self.items = self.items.saturating_mul(2).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_is_used_up_quickly_grows_to_its_bound() {
        let mut window = Window::new(None, 0, 2);
        assert_eq!(window.room(0), 8);
        let now = Instant::now();
        window.since = Some(now);
        window.grow_if_quick(now + Duration::from_millis(60));
        assert_eq!(window.room(0), 8);
        for _ in 0..20 {
            window.grow_if_quick(now + Duration::from_millis(70));
        }
        assert_eq!((window.room(0), window.room(1000), window.room(2000)), (1024, 24, 0));
    }

    #[test]
    fn a_window_follows_the_slots() {
        let mut window = Window::new(None, 0, 0);
        assert_eq!((window.room(0), window.most), (4, 512));
        window.follow(10);
        assert_eq!((window.room(0), window.most), (40, 5120));
        window.items = 5000;
        window.follow(2);
        assert_eq!((window.room(0), window.most), (1024, 1024));
        window.follow(3);
        assert_eq!((window.room(0), window.most), (1024, 1536));
    }

    #[test]
    fn an_explicit_buffersize_stays_constant() {
        let mut window = Window::new(Some(3), 0, 64);
        window.follow(2);
        window.start();
        (0..100).for_each(|_| window.note_taken());
        assert_eq!(window.room(0), 3);
        assert!(window.is_due(2) && !window.is_due(3));
    }

    #[test]
    fn an_incomplete_chunk_is_filled_before_waiting() {
        let window = Window::new(Some(100), 100, 2);
        assert!(!window.is_due(90) && window.is_due_before_waiting(90));
        let window = Window::new(Some(100), 0, 2);
        assert!(!window.is_due_before_waiting(90));
    }

    #[test]
    fn explicit_chunks_fit_into_the_window() {
        assert_eq!(Window::new(None, 1000, 8).room(0), 32_000);
    }
}
