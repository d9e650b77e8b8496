//! Agents' sessions, as the loop sees them.

use farpool_net::Outgoing;
use farpool_proto::v1::{AgentCommand, AgentEvent, agent_command, agent_event};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::super::link::{Joins, Said};
use super::super::sessions::from;
use super::Driver;
use crate::{AgentId, Refused, RefusedKind};

/// An agent's session.
pub(super) struct Agent {
    outgoing: Outgoing<AgentCommand>,
    turns: mpsc::Sender<()>,
    pub(super) host: String,
    /// It has said that it is leaving.
    leaving: bool,
    /// Bytes of a message that is not whole yet.
    pub(super) partial: u64,
    /// Bytes that waited for it when something was last added, and when they were last seen to have become fewer.
    queued: usize,
    moved_at: u64,
    // Gathered in a round. Kept for its memory.
    fresh: Vec<AgentCommand>,
}

/// An agent for which more than this waits, in bytes, and that has not read any of it for so long, in ns, is lost. Credit
/// bounds what it is given to run, but not what it is told of pools that come and go.
const MAX_UNREAD: usize = 64 << 20;
const READS_WITHIN_NS: u64 = 30_000_000_000;

impl Agent {
    fn new(outgoing: Outgoing<AgentCommand>, turns: mpsc::Sender<()>, host: String, now: u64) -> Self {
        Self { outgoing, turns, host, leaving: false, partial: 0, queued: 0, moved_at: now, fresh: Vec::new() }
    }

    /// Puts what has gathered into its queue. False: it does not read.
    fn send(&mut self, now: u64) -> bool {
        if self.outgoing.waiting() < self.queued || self.queued == 0 {
            self.moved_at = now;
        }
        self.outgoing.extend(self.fresh.drain(..));
        self.queued = self.outgoing.waiting();
        self.queued <= MAX_UNREAD || now - self.moved_at <= READS_WITHIN_NS
    }

    fn welcome(&self) {
        let welcome = agent_command::Body::Welcome(farpool_proto::version());
        self.outgoing.push(AgentCommand { body: Some(welcome) });
    }
}

impl Driver {
    pub(super) fn agent_joins(&mut self, joins: Joins<AgentCommand, AgentEvent, AgentId>) {
        let Joins { outgoing, turns, address, messages, id: reply } = joins;
        let id = self.coordinator.connect_agent();
        let (host, slots) = match messages.first().and_then(|message| message.body.as_ref()) {
            Some(agent_event::Body::Hello(hello)) => (hello.host.clone(), hello.slots),
            _ => (from(address), 0),
        };
        let agent = Agent::new(outgoing, turns, host.clone(), self.now);
        self.agents.insert(id, agent);
        let _ = reply.send(id);
        self.agent_says(id, Said::Messages { messages, partial: 0 });
        if let Some(agent) = self.agents.get(&id) {
            // Comes first, since what the coordinator says waits for the end of the round.
            agent.welcome();
            self.link.log.line(format_args!("agent {host} joined {} with {slots} slots", from(address)));
        }
    }

    pub(super) fn agent_says(&mut self, id: AgentId, said: Said<AgentEvent>) {
        let (messages, partial) = match said {
            Said::Messages { messages, partial } => (messages, partial as u64),
            Said::Gone(end) => return self.end_agent(id, end),
        };
        for event in messages {
            let Some(agent) = self.agents.get_mut(&id) else { return };
            agent.leaving |= matches!(event.body, Some(agent_event::Body::Draining(_)));
            if let Err(refused) = self.coordinator.agent_event(id, event, self.now, &mut self.out) {
                self.end_agent(id, Err(status(&refused)));
            }
        }
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.partial = partial;
            // There is room, since its last turn is over; or it is gone.
            let _ = agent.turns.try_send(());
        }
    }

    fn end_agent(&mut self, id: AgentId, end: Result<(), Status>) {
        self.send_to_agents();
        let Some(agent) = self.agents.remove(&id) else { return };
        let (host, log) = (&agent.host, &self.link.log);
        match end {
            Ok(()) if agent.leaving => log.line(format_args!("agent {host} left, as it had announced")),
            Ok(()) => log.line(format_args!("agent {host} left")),
            Err(status) => {
                log.line(format_args!("agent {host} is lost: {}", status.message()));
                agent.outgoing.fail(status);
            }
        }
        agent.outgoing.finish();
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
            if self.agents.get_mut(&id).is_some_and(|agent| !agent.send(self.now)) {
                let message = "the agent does not read what it is told";
                self.end_agent(id, Err(Status::resource_exhausted(message)));
            }
        }
        self.touched_agents = touched;
    }

    pub(super) fn dismiss_agents(&mut self, why: &Status) {
        self.agents.drain().for_each(|(_, agent)| agent.outgoing.fail(why.clone()));
    }
}

fn status(refused: &Refused) -> Status {
    let code = match refused.kind() {
        RefusedKind::AgentIdUsed(_) => Code::AlreadyExists,
        _ => Code::InvalidArgument,
    };
    Status::new(code, refused.to_string())
}
