//! The bound on the bytes that are held: items, results that clients have not read yet, and messages that are not whole.
//!
//! When there are more than that, the clients that hold most are not read any more: so many of them that the others
//! together hold a tenth of the memory at most, and can go on. Nothing is dropped. Below nine tenths all are read again.
//! What a client has on its way meanwhile is held back by HTTP/2's flow control.

use std::cmp::Reverse;

use super::Driver;
use super::clients::Client;
use crate::ClientId;

/// While clients are stopped their queues drain without a word, so they are looked at in this interval, in ns.
const LOOK_NS: u64 = 20_000_000;

pub(super) struct Memory {
    bound: u64,
    /// What all clients are counted with: never less than what they hold, since queues become shorter by themselves.
    counted: u64,
    /// Clients are stopped.
    full: bool,
}

impl Memory {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, counted: 0, full: false }
    }

    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        self.full.then_some(now + LOOK_NS)
    }

    /// To be called when the client may hold more than before.
    pub(super) fn count(&mut self, client: &mut Client) {
        self.forget(client);
        client.counted = client.held();
        self.counted += client.counted;
    }

    pub(super) fn forget(&mut self, client: &Client) {
        self.counted -= client.counted;
    }

    /// Below this all clients are read again.
    fn low(&self) -> u64 {
        self.bound / 10 * 9
    }

    /// What those may hold together that are read on.
    fn reserve(&self) -> u64 {
        self.bound / 10
    }
}

impl Driver {
    /// Bytes that are held.
    pub(super) fn held(&mut self) -> u64 {
        self.clients.values_mut().for_each(|client| self.memory.count(client));
        self.at_most_held()
    }

    fn at_most_held(&self) -> u64 {
        let agents: u64 = self.agents.values().map(|agent| agent.partial).sum();
        self.coordinator.stored_bytes() + self.memory.counted + agents
    }

    pub(super) fn tend_memory(&mut self) {
        if !self.memory.full && self.at_most_held() <= self.memory.bound {
            return;
        }
        let held = self.held();
        if held > self.memory.bound {
            if !std::mem::replace(&mut self.memory.full, true) {
                self.link.log.line("the memory is full: the clients that hold most are not read for a while");
            }
            self.stop_clients();
        } else if self.memory.full && held < self.memory.low() {
            self.memory.full = false;
            for client in self.clients.values_mut() {
                client.stopped = false;
                client.give_turn();
            }
        }
    }

    fn stop_clients(&mut self) {
        let reading = self.clients.iter().filter(|(_, client)| !client.stopped);
        let mut reading: Vec<(u64, ClientId)> =
            reading.map(|(&id, client)| (client.counted + self.coordinator.stored_bytes_of(id), id)).collect();
        reading.sort_unstable_by_key(|&(held, _)| Reverse(held));
        let mut together: u64 = reading.iter().map(|(held, _)| held).sum();
        for (held, id) in reading {
            if together <= self.memory.reserve() {
                return;
            }
            together -= held;
            self.clients.entry(id).and_modify(|client| client.stopped = true);
        }
    }
}
