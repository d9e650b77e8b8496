//! Sessions with agents.

use farpool_core::Event;
use farpool_proto::v1::{Assign, CancelChunks, Retract, agent_command};

use crate::AgentId;
use crate::convert::{FromAgent, Hello};
use crate::coordinator::Coordinator;
use crate::follow::Report;
use crate::outbox::Outbox;
use crate::rate::Rate;
use crate::refused::{Refused, RefusedKind};

/// An agent's session.
#[derive(Default)]
pub(crate) struct Agent {
    /// None: it has not said hello.
    pub(crate) hello: Option<Hello>,
    /// Whether it is leaving, and gets nothing new.
    pub(crate) draining: bool,
    /// Whether it was told to leave.
    pub(crate) told_to_drain: bool,
    pub(crate) joined_at: u64,
    pub(crate) items_done: u64,
    pub(crate) rate: Rate,
    /// What it will be sent at the end of this round.
    pub(crate) assign: Assign,
    pub(crate) retract: Retract,
    pub(crate) cancel: CancelChunks,
}

impl Agent {
    pub(crate) fn host(&self) -> &str {
        self.hello.as_ref().map_or("", |hello| &hello.host)
    }

    /// Whether it is among those that will be sent something at the end of this round.
    pub(crate) fn has_mail(&self) -> bool {
        !self.assign.chunks.is_empty() || !self.retract.chunks.is_empty() || !self.cancel.chunks.is_empty()
    }
}

impl Coordinator {
    pub(crate) fn agent_says(&mut self, from: AgentId, event: FromAgent, out: &mut Outbox) -> Result<(), Refused> {
        let agent = self.agents.get(from).ok_or(RefusedKind::NoSession)?;
        match (&agent.hello, event) {
            (Some(_), FromAgent::Hello(_)) => Err(RefusedKind::Repeated("AgentHello").into()),
            (None, FromAgent::Hello(hello)) => self.greet(from, hello, out),
            (None, _) => Err(RefusedKind::NotFirst("AgentHello").into()),
            (Some(_), FromAgent::PoolStopped { pool }) => self.pool_stopped(from, pool, out),
            (Some(_), event) => {
                self.report(from, event, out);
                Ok(())
            }
        }
    }

    pub(crate) fn forget_agent(&mut self, id: AgentId, out: &mut Outbox) {
        let Some(agent) = self.agents.get(id) else { return };
        if agent.hello.is_some() {
            self.core.handle(Event::AgentLost { agent: id }, self.now, &mut self.actions);
            let hello = self.agents.remove(id).and_then(|agent| agent.hello).expect("it was just found");
            self.labels.give_back(&hello.labels);
            self.follow(Some(Report::Lost { host: hello.host }), out);
            self.leave_pools(id, out);
        } else {
            self.agents.remove(id);
        }
    }

    /// Sends what has gathered in this round.
    pub(crate) fn flush(&mut self, out: &mut Outbox) {
        for id in self.to_flush.drain(..) {
            let Some(agent) = self.agents.get_mut(id) else { continue };
            if !agent.assign.chunks.is_empty() {
                out.agent(id, agent_command::Body::Assign(std::mem::take(&mut agent.assign)));
            }
            if !agent.retract.chunks.is_empty() {
                out.agent(id, agent_command::Body::Retract(std::mem::take(&mut agent.retract)));
            }
            if !agent.cancel.chunks.is_empty() {
                out.agent(id, agent_command::Body::CancelChunks(std::mem::take(&mut agent.cancel)));
            }
        }
    }

    /// The agent gets nothing new from now on.
    pub(crate) fn drain(&mut self, id: AgentId, out: &mut Outbox) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.hello.is_some()) else { return };
        if !std::mem::replace(&mut agent.draining, true) {
            self.feed(Event::AgentDraining { agent: id }, out);
            self.review_all(out);
        }
    }

    fn greet(&mut self, id: AgentId, hello: Hello, out: &mut Outbox) -> Result<(), Refused> {
        if let Some(own) = hello.id
            && self.agents.iter().any(|(_, agent)| agent.hello.as_ref().is_some_and(|hello| hello.id == Some(own)))
        {
            return Err(RefusedKind::AgentIdUsed(id_as_text(Some(own))).into());
        }
        let slots = hello.slots;
        let agent = self.agents.get_mut(id).expect("it was just found");
        agent.hello = Some(hello);
        agent.joined_at = self.now;
        let labels = self.labels.take(&agent.hello.as_ref().expect("it was just given").labels);
        self.feed(Event::AgentJoined { agent: id, slots, labels }, out);
        self.review_all(out);
        Ok(())
    }

    fn report(&mut self, agent: AgentId, event: FromAgent, out: &mut Outbox) {
        let (event, report) = match event {
            FromAgent::RunDone { chunk, attempt, results, busy_ns } => {
                let (first, count) = (results.first, results.count);
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.items_done += count;
                    agent.rate.count(count, self.now);
                }
                let event = Event::RunDone { agent, chunk, attempt, first, count, busy_ns };
                (event, Some(Report::Results(results)))
            }
            FromAgent::ItemFault { chunk, attempt, item, fault, mut failure } => {
                if failure.host.is_empty() {
                    failure.host = self.agents.get(agent).map_or("", |agent| agent.host()).to_owned();
                }
                (Event::ItemFaulted { agent, chunk, attempt, item, fault }, Some(Report::Fault(failure)))
            }
            FromAgent::Returned { chunk, attempt, first, count } => {
                (Event::Returned { agent, chunk, attempt, first, count }, None)
            }
            FromAgent::Credit { chunks, bytes } => {
                (Event::AgentCredit { agent, chunks: chunks.min(self.config.max_agent_chunks), bytes }, None)
            }
            FromAgent::PoolFault { pool, mut failure } => {
                if failure.host.is_empty() {
                    failure.host = self.agents.get(agent).map_or("", |agent| agent.host()).to_owned();
                }
                return self.pool_fault(agent, pool, failure, out);
            }
            FromAgent::PoolStarted { pool } => return self.pool_started(agent, pool, out),
            FromAgent::Output { pool, pid, stream, data } => {
                return self.pass_output(agent, pool, (pid, stream, data), out);
            }
            FromAgent::Draining => return self.drain(agent, out),
            // Shown in the status.
            FromAgent::Ailing { .. } => return,
            FromAgent::Hello(_) | FromAgent::PoolStopped { .. } => unreachable!("taken in before"),
        };
        self.core.handle(event, self.now, &mut self.actions);
        self.follow(report, out);
    }
}

/// An agent's id as operators see and give it.
pub(crate) fn id_as_text(id: Option<[u8; 16]>) -> String {
    let Some(id) = id else { return "local".to_owned() };
    let mut text = String::with_capacity(36);
    for (at, byte) in id.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
