//! What every component works with in a round, beside what it owns.

use farpool_coordinator::{ClientId, Coordinator, Outbox};

use super::super::link::Link;

pub(super) struct Round {
    /// The time of this round, in ns since the server's start.
    pub(super) now: u64,
    pub(super) coordinator: Coordinator,
    /// What the coordinator has said and nobody was told yet.
    pub(super) out: Outbox,
    pub(super) link: Link,
    pub(super) memory: Room,
    /// The server shuts down, and takes nothing new.
    pub(super) drains: bool,
}

/// How the server's memory is.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) is_full: bool,
    /// Bytes that may be held.
    pub(super) bound: u64,
    /// How long a client may be silent while it should say something, in ns.
    pub(super) patience: u64,
}

impl Round {
    /// Returns the bytes that the coordinator keeps of a client's jobs and their items.
    pub(super) fn bytes_of(&self, id: ClientId) -> u64 {
        self.coordinator.stored_bytes_of(id) + self.coordinator.job_bytes_of(id)
    }

    /// Returns the bytes that the coordinator keeps of all jobs and their items.
    pub(super) fn bytes_of_jobs(&self) -> u64 {
        self.coordinator.stored_bytes() + self.coordinator.job_bytes()
    }
}
