//! Results that clients do not take.
//!
//! A client whose queue is too long has its pool paused, which then gets no new chunks. But agents may have many of its chunks,
//! and a hostile agent has as many as it likes. So while the memory is nearly full and such results take more than their part of
//! it, an agent is read until it has sent a little more, and then not at all: HTTP/2's flow control holds back the rest.
//! That may hold up everybody's results, so it has an end: clients that take next to nothing of their queues for as long as a peer
//! may be silent lose their sessions, as do those that acknowledge nothing.
//!
//! The agent that is read on alone is read until its message is whole; see [`Partials`](super::partials::Partials).

use tonic::Status;

use super::Driver;
use super::clients::Client;
use farpool_coordinator::AgentId;

/// What each agent may send while it is so: such a part of the memory.
const LITTLE_PART: u64 = 64;

/// What a client must take at least in the time for which it may be silent, if as much again waits for it.
const LEAST_TAKEN: u64 = 1 << 20;

/// What waited for a client at some time.
#[derive(Clone, Copy)]
pub(super) struct Waited {
    bytes: u64,
    since: u64,
}

impl Client {
    /// Whether it has taken next to nothing of a queue that is too long for so long, while agents wait for it. A client whose
    /// connection is lost has the time that there is for that.
    fn is_slow(&mut self, now: u64, patience: u64) -> bool {
        let bytes = self.waiting();
        let before = self.waited.get_or_insert(Waited { bytes, since: now });
        let takes = before.bytes.saturating_sub(bytes) >= LEAST_TAKEN.min(before.bytes / 2);
        if takes || !self.is_paused() || self.session.is_away() {
            self.waited = Some(Waited { bytes, since: now });
        }
        self.waited.is_some_and(|waited| now.saturating_sub(waited.since) > patience)
    }
}

impl Driver {
    /// Has an agent read on, now or when there is room for what it sends.
    pub(super) fn let_report(&mut self, id: AgentId) {
        let is_full = self.is_full_of_results();
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let has_sent_enough = agent.partial + agent.reported_while_full > self.memory.bound() / LITTLE_PART;
        if is_full && has_sent_enough && !self.partials.is_alone(id) {
            agent.waits_for_clients = true;
        } else {
            self.partials.give_turn(id, agent, self.now);
        }
    }

    /// Has agents read on where clients have taken their results, and ends clients that do not.
    pub(super) fn tend_slow_readers(&mut self) {
        if self.is_full_of_results() {
            self.memory.holds_agents_up = true;
            self.end_slow_readers();
            self.end_mute_clients();
        } else if std::mem::take(&mut self.memory.holds_agents_up) {
            self.clients.values_mut().for_each(|client| client.waited = None);
            let mut waiting = Vec::new();
            for (&id, agent) in &mut self.agents {
                agent.reported_while_full = 0;
                if std::mem::take(&mut agent.waits_for_clients) {
                    waiting.push(id);
                }
            }
            waiting.into_iter().for_each(|id| self.let_report(id));
        }
    }

    fn end_slow_readers(&mut self) {
        let (now, patience) = (self.now, self.memory.patience());
        let clients = self.clients.iter_mut();
        let slow: Vec<_> = clients.filter_map(|(&id, client)| client.is_slow(now, patience).then_some(id)).collect();
        for id in slow {
            let why = "the coordinator's memory is full of results, and this client does not read its own";
            self.end_client(id, Err(Status::resource_exhausted(why)));
        }
    }
}
