//! Sessions whose connections are lost. For a while they can be resumed.

use std::collections::VecDeque;
use std::time::Duration;

use farpool_coordinator::{AgentId, ClientId};

use super::super::clock::nanos;

/// When to end sessions that were not resumed.
pub(super) struct DisconnectedSessions {
    /// How long they are kept, in ns.
    grace: u64,
    /// The time to end each session, its peer, and the lost connection, since a resumed session has a new one. Ordered by time.
    waiting: VecDeque<(u64, Peer, u64)>,
}

#[derive(Clone, Copy)]
pub(super) enum Peer {
    Client(ClientId),
    Agent(AgentId),
}

impl DisconnectedSessions {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace: nanos(grace), waiting: VecDeque::new() }
    }

    pub(super) fn next_check(&self) -> Option<u64> {
        self.waiting.front().map(|(until, ..)| *until)
    }

    /// Keeps a session whose connection is lost for a while.
    pub(super) fn add(&mut self, peer: Peer, connection: u64, now: u64) {
        self.waiting.push_back((now.saturating_add(self.grace), peer, connection));
    }

    /// Takes the next session whose time is over by now, with the connection that was lost.
    pub(super) fn take_due(&mut self, now: u64) -> Option<(Peer, u64)> {
        if self.next_check()? > now {
            return None;
        }
        self.waiting.pop_front().map(|(_, peer, connection)| (peer, connection))
    }
}
