//! Results that clients do not take.
//!
//! A client whose queue is too long has its pool paused, which then gets no new chunks. But agents may have many of its chunks,
//! and a hostile agent has as many as it likes. So while more than the bound is held and a good part of it are such
//! results, an agent is read until it has sent a little more, and then not at all: HTTP/2's flow control holds back the rest.
//! That holds up everybody's results, so it has an end: of the clients that have taken next to nothing of theirs for as long
//! as a peer may be silent, the ones that have most lose their sessions, until there is room.

use farpool_coordinator::{AgentId, ClientId};
use tonic::Status;

use super::agents::Agents;
use super::clients::Clients;
use super::memory::LOOK_NS;
use super::round::Round;

/// Whether agents are not read any more, once they have sent a little, until clients have taken their results.
#[derive(Default)]
pub(super) struct SlowReaders {
    holds_agents_up: bool,
}

impl SlowReaders {
    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        self.holds_agents_up.then_some(now + LOOK_NS)
    }

    /// Finds the slow client that has most, if there is one: its session ends. The next one is looked at when this has made room.
    /// `is_full`: the memory is, of results.
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

    /// Takes the agents that are read on, since clients have taken their results. `is_full`: the memory is, of results.
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
