//! Agents' sessions, as the loop sees them.

use bytes::Bytes;
use farpool_common::log::{info, warn};
use farpool_coordinator::AgentId;
use farpool_proto::v1::{AgentCommand, AgentEvent, agent_command, agent_event};
use prost::Message;
use tonic::Status;

use super::super::end::End;
use super::super::link::{Joins, Said, Says, shown};
use super::Driver;
use super::session::Session;
use super::unread::Unread;

/// An agent's session.
pub(super) struct Agent {
    pub(super) session: Session<AgentCommand>,
    pub(super) host: String,
    /// It has said that it is leaving.
    leaving: bool,
    /// What it has said of itself takes so many bytes.
    pub(super) opening: u64,
    /// Bytes of a message that is not whole yet.
    pub(super) partial: u64,
    /// Its turn is over, and it waits for the next until there is room for the rest of its message.
    pub(super) waits: bool,
    /// The same, until clients have taken their results.
    pub(super) waits_for_clients: bool,
    /// What waits for it.
    pub(super) unread: Unread,
    /// Bytes of results that it has reported since it was last sent anything.
    reported: usize,
    /// The same, since the memory has been full of them.
    pub(super) reported_while_full: u64,
    /// What waits for company is sent then.
    pub(super) flush_at: Option<u64>,
    // Gathered in a round. Kept for its memory.
    fresh: Vec<AgentCommand>,
}

/// What a hello takes in memory, by its bytes beyond those of one without chunks: chunks that an agent holds are small and many.
const HELLO_TAKES: u64 = 8;
const SMALL_HELLO: usize = 4 << 10;

/// What an agent need not know at once waits so long, in ns, for something that it must know, unless it keeps more results
/// than these, in bytes: nearly always the next call comes first, and a frame costs both sides more than what is in it.
const COMPANY_NS: u64 = 5_000_000;
const MAX_KEPT: usize = 1 << 20;

impl Agent {
    fn new(session: Session<AgentCommand>, host: String, opening: u64, now: u64) -> Self {
        Self {
            session,
            host,
            leaving: false,
            opening,
            partial: 0,
            waits: false,
            waits_for_clients: false,
            unread: Unread::new(now),
            reported: 0,
            reported_while_full: 0,
            flush_at: None,
            fresh: Vec::new(),
        }
    }

    /// Whether nothing is read of it for now.
    pub(super) fn is_stopped(&self) -> bool {
        self.waits || self.waits_for_clients
    }

    /// Puts what has gathered into its queue. False: it does not read.
    fn send(&mut self, now: u64, memory: u64) -> bool {
        self.look_whether_it_reads(now);
        let outgoing = &self.session.outgoing;
        if self.reported <= MAX_KEPT && self.fresh.iter().all(may_wait) {
            outgoing.extend_later(self.fresh.drain(..));
            self.flush_at.get_or_insert(now + COMPANY_NS);
        } else {
            outgoing.extend(self.fresh.drain(..));
            (self.reported, self.flush_at) = (0, None);
        }
        self.reads(now, memory)
    }

    /// Sends what has waited for company.
    pub(super) fn flush(&mut self) {
        self.session.outgoing.flush();
        (self.reported, self.flush_at) = (0, None);
    }

    fn welcome(&self) {
        let welcome = agent_command::Body::Welcome(farpool_proto::version());
        self.session.outgoing.push(AgentCommand { body: Some(welcome) });
    }
}

/// Whether nothing depends on when the agent hears of it: what it may forget.
fn may_wait(command: &AgentCommand) -> bool {
    use agent_command::Body;
    match &command.body {
        Some(Body::Settled(_)) => true,
        Some(Body::EndJob(end)) => !end.kill,
        _ => false,
    }
}

impl Driver {
    pub(super) fn agent_joins(&mut self, joins: Joins<AgentCommand, AgentEvent, AgentId>) {
        let Joins { outgoing, turns, principal, address, messages, passed, id: reply } = joins;
        let opening = messages.first().map_or(0, Message::encoded_len).saturating_sub(SMALL_HELLO) as u64 * HELLO_TAKES;
        if let Err(status) = self.admit_opening(opening, false) {
            warn!(self.link.log, address = shown(address), reason = status.message(), "agent refused");
            return outgoing.fail(status);
        }
        let id = self.coordinator.connect_agent();
        let (host, slots, own) = match messages.first().and_then(|message| message.body.as_ref()) {
            Some(agent_event::Body::Hello(hello)) => (hello.host.clone(), hello.slots, hello.id.clone()),
            _ => (address.map_or_else(String::new, |address| address.to_string()), 0, Bytes::new()),
        };
        let session = Session::new(outgoing, turns, (principal, address), &own, &passed);
        let own = session.identity;
        self.memory.opened(opening);
        session.outgoing.set_window(self.agents_window);
        self.agents.insert(id, Agent::new(session, host.clone(), opening, self.now));
        self.share_agents_windows();
        let _ = reply.send(id);
        let said = Said::Messages { messages, partial: 0 };
        self.agent_says(Says { id, connection: 0, said, passed: None });
        if let Some(agent) = self.agents.get(&id) {
            // Comes first, since what the coordinator says waits for the end of the round.
            agent.welcome();
            info!(self.link.log, host, address = shown(address), slots, "agent joined");
            if let Some(older) = own.and_then(|own| self.agent_ids.insert(own, id)) {
                // Only the same process has this secret: the older of its sessions is left over from a broken connection.
                self.end_agent(older, Err(Status::aborted(format!("an agent of the same id has joined from {host}"))));
            }
        }
    }

    pub(super) fn agent_says(&mut self, Says { id, connection, said, passed: _passed }: Says<AgentEvent, AgentId>) {
        let Some(agent) = self.agents.get(&id) else { return };
        let is_on = agent.session.is_on(connection);
        let (messages, partial) = match said {
            Said::Messages { messages, partial } => (messages, partial as u64),
            // How a connection ends that another one has replaced means nothing.
            Said::Gone(_) if !is_on => return,
            Said::Gone(End::Meant) => return self.end_agent(id, Ok(())),
            Said::Gone(End::Final(why)) => return self.end_agent(id, Err(why)),
            Said::Gone(End::Broken(why)) => return self.agent_breaks(id, why),
        };
        let is_full = self.is_full_of_results();
        for event in messages {
            let Some(agent) = self.agents.get_mut(&id) else { return };
            match &event.body {
                Some(agent_event::Body::RunDone(done)) => {
                    agent.reported += done.data.len();
                    agent.reported_while_full += if is_full { done.data.len() as u64 } else { 0 };
                }
                Some(agent_event::Body::Draining(_)) => agent.leaving = true,
                _ => {}
            }
            if let Err(refused) = self.coordinator.agent_event(id, event, self.now, &mut self.out) {
                self.end_agent(id, Err(Status::invalid_argument(refused.to_string())));
            }
        }
        if let Some(agent) = self.agents.get_mut(&id).filter(|_| is_on) {
            self.partials.change(agent, partial);
            self.let_report(id);
        }
    }

    pub(super) fn end_agent(&mut self, id: AgentId, end: Result<(), Status>) {
        self.send_to_agents();
        let Some(mut agent) = self.agents.remove(&id) else { return };
        self.share_agents_windows();
        self.memory.forget_unread(&mut agent);
        self.partials.change(&mut agent, 0);
        self.memory.closed(agent.opening);
        if let Some(own) = agent.session.identity
            && self.agent_ids.get(&own) == Some(&id)
        {
            self.agent_ids.remove(&own);
        }
        let (host, log) = (&agent.host, &self.link.log);
        match end {
            Ok(()) if agent.leaving => info!(log, host, "agent left after draining"),
            Ok(()) => {
                let reason = "disconnected without draining, or silent for longer than --heartbeat-timeout";
                warn!(log, host, reason, "agent lost");
            }
            Err(status) => {
                warn!(log, host, reason = status.message(), "agent lost");
                agent.session.outgoing.fail(status);
            }
        }
        agent.session.outgoing.finish();
        self.coordinator.agent_gone(id, self.now, &mut self.out);
    }

    pub(super) fn send_to_agents(&mut self) {
        for (id, command) in self.out.to_agents.drain(..) {
            let Some(agent) = self.agents.get_mut(&id) else { continue };
            if agent.fresh.is_empty() {
                self.touched_agents.push(id);
            }
            agent.fresh.push(command);
        }
        let mut touched = std::mem::take(&mut self.touched_agents);
        for id in touched.drain(..) {
            let Some(agent) = self.agents.get_mut(&id) else { continue };
            let reads = agent.send(self.now, self.memory.bound());
            self.memory.count_unread(agent);
            if let Some(at) = agent.flush_at {
                self.company.expect(id, at);
            }
            if !reads {
                self.end_deaf_agent(id);
            }
        }
        self.touched_agents = touched;
    }

    pub(super) fn dismiss_agents(&mut self, why: &Status) {
        std::mem::take(&mut self.agents).into_values().for_each(|agent| agent.session.outgoing.fail(why.clone()));
    }
}

#[cfg(test)]
mod tests;
