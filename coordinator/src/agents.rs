//! Sessions with agents.

use farpool_core::Event;
use farpool_proto::v1::{Assign, CancelChunks, Retract, agent_command};

use crate::AgentId;
use crate::convert::{FromAgent, HeldPool, Hello};
use crate::coordinator::Coordinator;
use crate::follow::Report;
use crate::ids::Identity;
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
    /// Its connection is lost and it may come back: it gets nothing new meanwhile.
    pub(crate) away: bool,
    /// Why its workers die before they can serve; empty: they do not.
    pub(crate) ailing: String,
    /// What it wants to hold: chunks and bytes.
    pub(crate) credit: (u32, u64),
    /// The pools that it runs for sessions that have ended, and that nobody has claimed or given up so far.
    pub(crate) held: Vec<HeldPool>,
    /// Reports of items that have come from it.
    pub(crate) reports: u64,
    /// Whether some of them came to nothing in this round, of which it is not known whose they were.
    pub(crate) strays: bool,
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

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.hello.as_ref()?.id
    }

    /// Whether it is among those that will be sent something at the end of this round.
    pub(crate) fn has_mail(&self) -> bool {
        !(self.assign.chunks.is_empty() && self.retract.chunks.is_empty() && self.cancel.chunks.is_empty())
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
            if let Some(own) = hello.id {
                self.agent_ids.remove(&own);
            }
            self.follow(Some(Report::Lost { host: hello.host }), out);
            self.leave_pools(id, hello.id, out);
        } else {
            self.agents.remove(id);
        }
    }

    /// Sends what has gathered in this round.
    pub(crate) fn flush(&mut self, out: &mut Outbox) {
        for at in 0..self.to_flush.len() {
            let id = self.to_flush[at];
            // What it is rid of makes room for what comes.
            self.send_cancelled(id, out);
            let Some(agent) = self.agents.get_mut(id) else { continue };
            if !agent.assign.chunks.is_empty() {
                out.agent(id, agent_command::Body::Assign(std::mem::take(&mut agent.assign)));
            }
            if !agent.retract.chunks.is_empty() {
                out.agent(id, agent_command::Body::Retract(std::mem::take(&mut agent.retract)));
            }
        }
        self.to_flush.clear();
    }

    /// Sends the chunks that nobody needs any more: ahead of the end of their jobs, too.
    pub(crate) fn send_cancelled(&mut self, id: AgentId, out: &mut Outbox) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| !agent.cancel.chunks.is_empty()) else { return };
        out.agent(id, agent_command::Body::CancelChunks(std::mem::take(&mut agent.cancel)));
    }

    /// The agent gets nothing new from now on.
    pub(crate) fn drain(&mut self, id: AgentId, out: &mut Outbox) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.hello.is_some()) else { return };
        if !std::mem::replace(&mut agent.draining, true) {
            self.feed(Event::AgentDraining { agent: id }, out);
            self.review_all(out);
        }
    }

    fn greet(&mut self, id: AgentId, mut hello: Hello, out: &mut Outbox) -> Result<(), Refused> {
        if let Some(own) = hello.id {
            // Of two sessions of one agent the older is what a broken connection has left.
            if let Some(&older) = self.agent_ids.get(&own) {
                self.forget_agent(older, out);
            }
            self.agent_ids.insert(own, id);
        }
        let (slots, labels) = (hello.slots, self.labels.take(&hello.labels));
        self.late_messages = self.late_messages.saturating_add(hello.in_vain);
        let agent = self.agents.get_mut(id).expect("it was just found");
        agent.held = std::mem::take(&mut hello.held);
        agent.hello = Some(hello);
        agent.joined_at = self.now;
        self.feed(Event::AgentJoined { agent: id, slots, labels }, out);
        self.comes_back(id, out);
        self.review_all(out);
        Ok(())
    }

    /// Whether the agent's connection is lost, for now: it keeps what it has, and gets nothing new.
    pub(crate) fn set_away(&mut self, id: AgentId, away: bool, out: &mut Outbox) {
        let Some(agent) = self.agents.get_mut(id).filter(|agent| agent.hello.is_some()) else { return };
        if std::mem::replace(&mut agent.away, away) != away {
            let (chunks, bytes) = if away { (0, 0) } else { agent.credit };
            self.feed(Event::AgentCredit { agent: id, chunks, bytes }, out);
        }
    }

    /// Takes in a report of items.
    fn report_items(&mut self, from: AgentId, event: Event, report: Report, out: &mut Outbox) {
        let Some(agent) = self.agents.get_mut(from) else { return };
        agent.reports += 1;
        self.reporting = agent.identity().map(|_| (from, agent.reports));
        self.core.handle(event, self.now, &mut self.actions);
        self.follow(Some(report), out);
        self.came_to_nothing();
    }

    fn report(&mut self, agent: AgentId, event: FromAgent, out: &mut Outbox) {
        match event {
            FromAgent::RunDone { chunk, attempt, results, busy_ns } => {
                let (first, count) = (results.first, results.count);
                if let Some(agent) = self.agents.get_mut(agent) {
                    agent.items_done += count;
                    agent.rate.count(count, self.now);
                }
                let event = Event::RunDone { agent, chunk, attempt, first, count, busy_ns, failed: results.failed };
                self.report_items(agent, event, Report::Results(results), out);
            }
            FromAgent::ItemFault { chunk, attempt, item, fault, mut failure } => {
                if failure.host.is_empty() {
                    failure.host = self.agents.get(agent).map_or("", |agent| agent.host()).to_owned();
                }
                let event = Event::ItemFaulted { agent, chunk, attempt, item, fault };
                self.report_items(agent, event, Report::Fault(failure), out);
            }
            FromAgent::Returned { chunk, attempt, first, count } => {
                self.feed(Event::Returned { agent, chunk, attempt, first, count }, out);
            }
            FromAgent::Credit { chunks, bytes } => {
                let chunks = chunks.min(self.config.max_agent_chunks);
                let Some(state) = self.agents.get_mut(agent) else { return };
                state.credit = (chunks, bytes);
                if !state.away {
                    self.feed(Event::AgentCredit { agent, chunks, bytes }, out);
                }
            }
            FromAgent::PoolFault { pool, mut failure } => {
                if failure.host.is_empty() {
                    failure.host = self.agents.get(agent).map_or("", |agent| agent.host()).to_owned();
                }
                self.pool_fault(agent, pool, failure, out);
            }
            FromAgent::PoolStarted { pool } => self.pool_started(agent, pool, out),
            FromAgent::Output { pool, pid, stream, data } => {
                self.pass_output(agent, pool, (pid, stream, data), out);
            }
            FromAgent::Draining => self.drain(agent, out),
            FromAgent::InVain { items } => self.late_messages = self.late_messages.saturating_add(items),
            FromAgent::Ailing { reason, pool: Some(pool) } => self.pool_ails(agent, pool, reason, out),
            FromAgent::Ailing { reason, pool: None } => {
                let Some(state) = self.agents.get_mut(agent) else { return };
                let ails = !reason.is_empty();
                let ailed = !std::mem::replace(&mut state.ailing, reason).is_empty();
                self.feed(Event::AgentAils { agent, ails }, out);
                if ails != ailed {
                    self.review_all(out);
                }
            }
            FromAgent::Hello(_) | FromAgent::PoolStopped { .. } => unreachable!("taken in before"),
        }
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
