//! What a component may touch in its turn, beside what it owns.

use farpool_coordinator::{Coordinator, Outbox};

use super::super::super::link::Link;

pub(in super::super) struct Turn<'a> {
    /// The time of this round.
    pub(in super::super) now: u64,
    pub(in super::super) coordinator: &'a mut Coordinator,
    pub(in super::super) out: &'a mut Outbox,
    pub(in super::super) link: &'a Link,
    pub(in super::super) memory: Room,
    /// The server ends, and takes nothing new.
    pub(in super::super) drains: bool,
}

/// How the server's memory is.
#[derive(Clone, Copy)]
pub(in super::super) struct Room {
    pub(in super::super) is_full: bool,
    /// Bytes that it may be.
    pub(in super::super) bound: u64,
    /// How long a client may be silent while it should say something, in ns.
    pub(in super::super) patience: u64,
}
