//! Results that clients do not take.
//!
//! If a client's queue is too long, its pool is paused and gets no new chunks. But agents may have many of its chunks, and a hostile
//! agent has as many as it likes. So while more than the bound is held, and a good part of it is such results, an agent is read
//! until it has sent a little more, and then not at all: HTTP/2's flow control holds back the rest. That delays all clients'
//! results, so it has an end: clients that take next to none of theirs for as long as a peer may be silent lose their sessions, those
//! with most results first, until there is room.

use farpool_coordinator::{AgentId, ClientId};
use tonic::Status;

use super::agents::Agents;
use super::clients::Clients;
use super::memory::LOOK_NS;
use super::round::Round;

/// Stops agents while the memory is full of results, and finds the clients that do not take theirs.
#[derive(Default)]
pub(super) struct SlowReaders {
    holds_agents_up: bool,
}

impl SlowReaders {
    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        self.holds_agents_up.then_some(now + LOOK_NS)
    }

    /// Returns the slow client with most results, if there is one, and why its session ends. The next one is checked when this has made
    /// room. `is_full`: the memory is full of results.
    pub(super) fn slowest(
        &mut self,
        round: &Round,
        clients: &mut Clients,
        is_full: bool,
    ) -> Option<(ClientId, Status)> {
        self.holds_agents_up |= is_full;
        if !is_full {
            return None;
        }
        let (now, patience) = (round.now, round.memory.patience);
        let slow =
            clients.iter_mut().filter_map(|(id, client)| client.is_slow(now, patience).then_some((client.results, id)));
        let (_, id) = slow.max()?;
        let why = "the coordinator's memory is full of results, and this client does not take its own";
        Some((id, Status::resource_exhausted(why)))
    }

    /// Returns the agents that are read again, because clients have taken their results. `is_full`: the memory is full of results.
    pub(super) fn take_those_let_go(
        &mut self,
        clients: &mut Clients,
        agents: &mut Agents,
        is_full: bool,
    ) -> Vec<AgentId> {
        if is_full || !std::mem::take(&mut self.holds_agents_up) {
            return Vec::new();
        }
        clients.iter_mut().for_each(|(_, client)| client.waited = None);
        agents.forget_what_was_reported()
    }
}
