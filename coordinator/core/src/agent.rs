//! What is known of an agent.

use crate::held::Held;

/// An agent and what it holds.
pub(crate) struct Agent {
    slots: u32,
    credit: u32,
    draining: bool,
    /// How many chunks it holds.
    pub(crate) count: u32,
    /// How many of them it was asked to give back.
    pub(crate) retracting: u32,
    pub(crate) held: Held,
    /// Whether the heaps have its old keys.
    pub(crate) outdated: bool,
    // 2^32 / slots, so that comparing loads needs no division.
    load_of_one: u64,
}

/// The least is the agent to give the next chunk: the least loaded, then the one that asks for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Room {
    load: u64,
    wish: std::cmp::Reverse<u32>,
}

/// The least is the agent to take a chunk from: the one with most chunks that no slot of it has begun.
pub(crate) type Surplus = std::cmp::Reverse<u32>;

impl Agent {
    pub(crate) fn new(slots: u32) -> Self {
        assert!(slots > 0, "an agent without slots");
        Self {
            slots,
            credit: 0,
            draining: false,
            count: 0,
            retracting: 0,
            held: Held::default(),
            outdated: false,
            load_of_one: (1 << 32) / u64::from(slots),
        }
    }

    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.credit = 0;
    }

    pub(crate) fn set_credit(&mut self, chunks: u32) {
        self.credit = if self.draining { 0 } else { chunks };
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// Slots that have nothing and want something.
    pub(crate) fn idle(&self) -> u32 {
        self.slots.min(self.credit).saturating_sub(self.count)
    }

    /// Its place among those that have room; none: it has no room.
    #[inline]
    pub(crate) fn room(&self) -> Option<Room> {
        let free = self.credit.checked_sub(self.count).filter(|&free| free > 0)?;
        Some(Room { load: u64::from(self.count) * self.load_of_one, wish: std::cmp::Reverse(free) })
    }

    /// Its place among those that can spare a chunk; none: it cannot.
    pub(crate) fn surplus(&self) -> Option<Surplus> {
        let spare = (self.count - self.retracting).checked_sub(self.slots).filter(|&spare| spare > 0)?;
        self.held.any_movable().then_some(std::cmp::Reverse(spare))
    }
}
