//! Results that clients do not take.
//!
//! A client whose queue is too long has its pool paused, which then gets no new chunks. But agents may have many of its chunks,
//! and a hostile agent has as many as it likes. So while more than the bound is held and a good part of it are such
//! results, an agent is read until it has sent a little more, and then not at all: HTTP/2's flow control holds back the rest.
//! That holds up everybody's results, so it has an end: of the clients that have taken next to nothing of theirs for as long
//! as a peer may be silent, the ones that have most lose their sessions, until there is room.
//!
//! The agent that is read on alone is read until its message is whole; see [`Partials`](super::partials::Partials).

use farpool_coordinator::AgentId;
use tonic::Status;

use super::Driver;
use super::clients::Client;

/// What each agent may send while it is so: such a part of the memory.
const LITTLE_PART: u64 = 64;

/// What a client must take at least in the time for which it may be silent, if as much again waits for it.
const LEAST_TAKEN: u64 = 1 << 20;

/// What a client had not taken at some time.
#[derive(Clone, Copy)]
pub(super) struct Waited {
    /// In its queue, and in all.
    bytes: [u64; 2],
    since: u64,
}

impl Client {
    /// Whether it has results of which it has taken next to nothing for so long, while agents wait for it. A client whose
    /// connection is lost has the time that there is for that.
    fn is_slow(&mut self, now: u64, patience: u64) -> bool {
        let bytes = [self.waiting(), self.sent_and_waiting()];
        let before = self.waited.get_or_insert(Waited { bytes, since: now });
        let takes = before
            .bytes
            .iter()
            .zip(bytes)
            .any(|(&before, now)| before.saturating_sub(now) >= LEAST_TAKEN.min(before / 2).max(1));
        if takes || self.results == 0 || self.session.is_away() {
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
            self.end_slowest_reader();
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

    /// Ends the session of the slow client that has most, if there is one. The next one is looked at when this has made room.
    fn end_slowest_reader(&mut self) {
        let (now, patience) = (self.now, self.memory.patience());
        let clients = self.clients.iter_mut();
        let slow = clients.filter_map(|(&id, client)| client.is_slow(now, patience).then_some((client.results, id)));
        if let Some((_, id)) = slow.max() {
            let why = "the coordinator's memory is full of results, and this client does not take its own";
            self.end_client(id, Err(Status::resource_exhausted(why)));
        }
    }
}
