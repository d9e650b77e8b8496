//! Limits results that clients do not read.
//!
//! If a client's queue is too long, its pool is paused and gets no new chunks. But agents may still have many of its
//! chunks, and a hostile agent may send any number of results. So while more than the bound is held, and a good part of
//! it is such results, each agent may send a little more and is then no longer read: HTTP/2's flow control holds back
//! the rest.
//!
//! This delays the results of all clients, so it must end. A client that reads next to none of its results for the
//! heartbeat timeout loses its session. Those with most results lose theirs first, until there is room.

use farpool_coordinator::{AgentId, ClientId};
use tonic::Status;

use super::agents::Agents;
use super::clients::Clients;
use super::memory::CHECK_NS;
use super::round::Round;

/// Stops agents while the memory is full of results, and finds the clients that do not read theirs.
#[derive(Default)]
pub(super) struct SlowReaders {
    agents_stopped: bool,
}

impl SlowReaders {
    pub(super) fn next_check(&self, now: u64) -> Option<u64> {
        self.agents_stopped.then_some(now + CHECK_NS)
    }

    /// Returns the slow client with most results, if any, and why its session ends. The next one is checked when this has made room.
    /// `is_full`: the memory is full of results.
    pub(super) fn slowest(
        &mut self,
        round: &Round,
        clients: &mut Clients,
        is_full: bool,
    ) -> Option<(ClientId, Status)> {
        self.agents_stopped |= is_full;
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

    /// Returns the agents that are read again because clients have read their results. `is_full`: the memory is full of results.
    pub(super) fn take_released(&mut self, clients: &mut Clients, agents: &mut Agents, is_full: bool) -> Vec<AgentId> {
        if is_full || !std::mem::take(&mut self.agents_stopped) {
            return Vec::new();
        }
        clients.iter_mut().for_each(|(_, client)| client.waited = None);
        agents.reset_reported()
    }
}
