//! The state that all components share in a round.

use farpool_coordinator::{ClientId, Coordinator, Outbox};

use super::super::link::Link;

pub(super) struct Round {
    /// The time of this round, in ns since the server's start.
    pub(super) now: u64,
    /// The random id of this coordinator, which differs from that of the previous one.
    pub(super) id: [u8; 16],
    pub(super) coordinator: Coordinator,
    /// The coordinator's messages that are not in a session's queue yet.
    pub(super) out: Outbox,
    pub(super) link: Link,
    pub(super) memory: MemoryState,
    /// The server is shutting down and accepts nothing new.
    pub(super) drains: bool,
}

/// The state of the server's memory.
#[derive(Clone, Copy)]
pub(super) struct MemoryState {
    pub(super) is_full: bool,
    /// How many bytes may be held.
    pub(super) bound: u64,
    /// How long a client may stay silent when it has something to acknowledge, in ns.
    pub(super) patience: u64,
}

impl Round {
    /// Returns how many bytes the coordinator keeps for a client's jobs and their items.
    pub(super) fn bytes_of(&self, id: ClientId) -> u64 {
        self.coordinator.stored_bytes_of(id) + self.coordinator.job_bytes_of(id)
    }

    /// Returns how many bytes the coordinator keeps for all jobs and their items.
    pub(super) fn bytes_of_jobs(&self) -> u64 {
        self.coordinator.stored_bytes() + self.coordinator.job_bytes()
    }
}
