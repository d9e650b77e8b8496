//! The state of an agent.

use std::cmp::Reverse;

use crate::held::HeldChunks;
use crate::ids::{PlaceId, PoolId};
use crate::labels::Labels;
use crate::memberships::Memberships;

/// An agent and the chunks it holds.
pub(crate) struct Agent {
    slots: u32,
    pub(crate) labels: Labels,
    pub(crate) credit: Credit,
    /// Whether it is leaving and gets nothing more.
    pub(crate) draining: bool,
    /// Whether its workers die before they can serve.
    pub(crate) unhealthy: bool,
    /// How many chunks it holds.
    pub(crate) count: u32,
    /// How many of them it was asked to give back.
    pub(crate) retracting: u32,
    /// How many chunks other agents were asked to give back for it.
    pub(crate) promised: u32,
    /// Bytes of the items that it holds, estimated from the average of each job.
    pub(crate) bytes: u64,
    pub(crate) held: HeldChunks,
    /// The pools that have a place at it.
    pub(crate) places: Vec<(PoolId, PlaceId)>,
    pub(crate) reaches: Memberships,
    /// Workers allotted to it, of pools with a limit.
    pub(crate) committed: u64,
    /// How many of its places will be stopped as soon as they hold nothing.
    pub(crate) given_up: u32,
    /// Slot time that the pool it served last had used; see `fair`.
    pub(crate) clock: u64,
    // 2^32 / slots, so that comparing loads needs no division.
    load_of_one: u64,
}

/// How much an agent wants to hold, running items included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credit {
    pub(crate) chunks: u32,
    /// 0: no bound.
    pub(crate) bytes: u64,
}

/// The load at which every slot has a chunk.
pub(crate) const FULL_LOAD: u64 = 1 << 32;

/// Sort key: the agent to get the next chunk is the least. That is the least loaded, then the one that asks for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AgentOrder {
    pub(crate) load: u64,
    pub(crate) wish: Reverse<u32>,
}

/// Sort key: the agent to take a chunk from is the least. That is the one with most chunks that none of its slots has
/// begun.
pub(crate) type Surplus = Reverse<u32>;

impl Agent {
    pub(crate) fn new(slots: u32, labels: Labels) -> Self {
        assert!(slots > 0, "an agent without slots");
        Self {
            slots,
            labels,
            credit: Credit::default(),
            draining: false,
            unhealthy: false,
            count: 0,
            retracting: 0,
            promised: 0,
            bytes: 0,
            held: HeldChunks::default(),
            places: Vec::new(),
            reaches: Memberships::default(),
            committed: 0,
            given_up: 0,
            clock: 0,
            load_of_one: FULL_LOAD / u64::from(slots),
        }
    }

    #[inline]
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        let bytes = self.credit.bytes == 0 || self.bytes < self.credit.bytes;
        bytes && self.count < self.credit.chunks && !self.draining
    }

    /// Returns how many slots have nothing, want something, and have nothing promised to them.
    #[inline]
    pub(crate) fn idle(&self) -> u32 {
        if self.has_room() { self.slots.min(self.credit.chunks).saturating_sub(self.count + self.promised) } else { 0 }
    }

    /// Its key among the agents that have room; `None`: it has no room.
    #[inline]
    fn room(&self) -> Option<AgentOrder> {
        let load = u64::from(self.count + self.promised) * self.load_of_one;
        self.has_room().then(|| AgentOrder { load, wish: Reverse(self.credit.chunks - self.count) })
    }

    /// Returns how many chunks none of its slots has begun and it was not asked to give back.
    #[inline]
    pub(crate) fn spare(&self) -> u32 {
        (self.count - self.retracting).saturating_sub(self.slots)
    }

    /// Returns its key among the agents that have room, and its key among those with chunks to spare.
    #[inline]
    pub(crate) fn keys(&self) -> (Option<AgentOrder>, Option<Surplus>) {
        (self.room(), self.surplus(self.spare()))
    }

    #[inline]
    pub(crate) fn surplus(&self, spare: u32) -> Option<Surplus> {
        (spare > 0 && self.held.any_movable()).then_some(Reverse(spare))
    }

    /// Sort key: the least agent is allotted the next worker. The key is whether workers die there, and how many are
    /// allotted per slot.
    pub(crate) fn commitment(&self) -> (bool, u64) {
        (self.unhealthy, self.committed.saturating_mul(self.load_of_one))
    }
}
