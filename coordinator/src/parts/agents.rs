//! Sessions with agents, and the mail for them.

use std::collections::BTreeMap;

use farpool_core::Slab;

use super::former::Held;
use super::mail::Mail;
use super::settlement::Reports;
use crate::AgentId;
use crate::convert::Hello;
use crate::ids::{Identity, PoolKey};
use crate::outbox::Outbox;
use crate::rate::Rate;

/// All sessions.
#[derive(Default)]
pub(crate) struct Agents {
    all: Slab<AgentId, Agent>,
    /// Those that have said hello; of two of one agent, the newer.
    by_identity: BTreeMap<Identity, AgentId>,
    /// Those for which mail has gathered in this round.
    with_mail: Vec<AgentId>,
}

/// An agent's session.
#[derive(Default)]
pub(crate) struct Agent {
    /// None: it has not said hello.
    hello: Option<Hello>,
    /// Whether it is leaving, and gets nothing new.
    draining: bool,
    /// Whether it was told to leave.
    told_to_drain: bool,
    /// Its connection is lost and it may come back: it gets nothing new meanwhile.
    away: bool,
    /// Why its workers die before they can serve; empty: they do not.
    unhealthy: String,
    credit: Credit,
    joined_at: u64,
    items_done: u64,
    rate: Rate,
    mail: Mail,
    /// What it runs for sessions that have ended.
    pub(crate) held: Held,
    pub(crate) reports: Reports,
}

/// What an agent wants to hold.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credit {
    pub(crate) chunks: u32,
    pub(crate) bytes: u64,
}

impl Agents {
    pub(crate) fn connect(&mut self) -> AgentId {
        self.all.insert(Agent::default())
    }

    #[inline]
    pub(crate) fn get(&self, id: AgentId) -> Option<&Agent> {
        self.all.get(id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: AgentId) -> Option<&mut Agent> {
        self.all.get_mut(id)
    }

    /// The agent, if it has said hello.
    pub(crate) fn greeted_mut(&mut self, id: AgentId) -> Option<&mut Agent> {
        self.all.get_mut(id).filter(|agent| agent.hello.is_some())
    }

    /// All agents that have said hello.
    pub(crate) fn greeted(&self) -> impl Iterator<Item = (AgentId, &Agent, &Hello)> {
        self.all.iter().filter_map(|(id, agent)| Some((id, agent, agent.hello.as_ref()?)))
    }

    /// The session of the agent with this identity.
    pub(crate) fn session_of(&self, identity: &Identity) -> Option<AgentId> {
        self.by_identity.get(identity).copied()
    }

    pub(crate) fn identity_of(&self, id: AgentId) -> Option<Identity> {
        self.all.get(id)?.identity()
    }

    pub(crate) fn host_of(&self, id: AgentId) -> &str {
        self.all.get(id).map_or("", Agent::host)
    }

    /// The agent has said hello.
    pub(crate) fn greet(&mut self, id: AgentId, mut hello: Hello, now: u64) {
        let Some(agent) = self.all.get_mut(id) else { return };
        if let Some(identity) = hello.id {
            self.by_identity.insert(identity, id);
        }
        agent.held = Held::new(std::mem::take(&mut hello.held));
        agent.hello = Some(hello);
        agent.joined_at = now;
    }

    /// The session has ended. Returns what the agent's hello was, if it had said it.
    pub(crate) fn remove(&mut self, id: AgentId) -> Option<Hello> {
        let hello = self.all.remove(id)?.hello?;
        if let Some(identity) = &hello.id {
            self.by_identity.remove(identity);
        }
        Some(hello)
    }

    /// Which agents hold the pool, and with how many workers; 0: as many as they have slots.
    pub(crate) fn holders(&self, pool: &PoolKey) -> Vec<(AgentId, u32)> {
        self.greeted().filter_map(|(id, agent, _)| Some((id, agent.held.workers_of(pool)?))).collect()
    }

    /// Those that hold something of which it is not known what becomes of it.
    pub(crate) fn holding(&self) -> Vec<AgentId> {
        self.all.iter().filter(|(_, agent)| !agent.held.is_empty()).map(|(id, _)| id).collect()
    }

    /// Where to put what the agent is sent at the end of the round.
    #[inline]
    pub(crate) fn mail_for(&mut self, id: AgentId) -> Option<&mut Mail> {
        let mail = &mut self.all.get_mut(id)?.mail;
        if mail.is_empty() {
            self.with_mail.push(id);
        }
        Some(mail)
    }

    /// Sends what has gathered in this round.
    pub(crate) fn flush(&mut self, out: &mut Outbox) {
        for id in self.with_mail.drain(..) {
            let Some(Agent { mail, .. }) = self.all.get_mut(id) else { continue };
            // What it is rid of makes room for what comes.
            for take in [Mail::take_cancelled, Mail::take_assigned, Mail::take_retracted] {
                if let Some(body) = take(mail) {
                    out.agent(id, body);
                }
            }
        }
    }

    /// Sends the chunks that nobody needs any more: ahead of the end of their jobs, too.
    pub(crate) fn send_cancelled(&mut self, id: AgentId, out: &mut Outbox) {
        let cancelled = self.all.get_mut(id).and_then(|agent| agent.mail.take_cancelled());
        cancelled.into_iter().for_each(|body| out.agent(id, body));
    }
}

impl Agent {
    pub(crate) fn has_greeted(&self) -> bool {
        self.hello.is_some()
    }

    pub(crate) fn host(&self) -> &str {
        self.hello.as_ref().map_or("", |hello| &hello.host)
    }

    pub(crate) fn slots(&self) -> u32 {
        self.hello.as_ref().map_or(0, |hello| hello.slots)
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        self.hello.as_ref()?.id
    }

    /// Whether it is leaving, and gets nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// It is leaving. False: that was known.
    pub(crate) fn drain(&mut self) -> bool {
        !std::mem::replace(&mut self.draining, true)
    }

    /// It is told to leave. False: it was told already.
    pub(crate) fn tell_to_drain(&mut self) -> bool {
        !std::mem::replace(&mut self.told_to_drain, true)
    }

    /// Whether its connection is lost and it may come back.
    pub(crate) fn is_away(&self) -> bool {
        self.away
    }

    /// Its connection is lost, or it is back. Returns its credit now; none: that was known.
    pub(crate) fn set_away(&mut self, away: bool) -> Option<Credit> {
        let is_news = std::mem::replace(&mut self.away, away) != away;
        is_news.then(|| if away { Credit::default() } else { self.credit })
    }

    /// What it wants to hold. False: it gets nothing as long as it is away.
    pub(crate) fn set_credit(&mut self, credit: Credit) -> bool {
        self.credit = credit;
        !self.away
    }

    /// Why its workers die before they can serve; empty: they do not.
    pub(crate) fn unhealthy(&self) -> &str {
        &self.unhealthy
    }

    /// Returns whether it becomes, or ceases to be, an agent at which nothing can run.
    pub(crate) fn set_unhealthy(&mut self, reason: String) -> bool {
        let unhealthy = !reason.is_empty();
        unhealthy == std::mem::replace(&mut self.unhealthy, reason).is_empty()
    }

    pub(crate) fn joined_at(&self) -> u64 {
        self.joined_at
    }

    #[inline]
    pub(crate) fn count_done(&mut self, items: u64, now: u64) {
        self.items_done += items;
        self.rate.count(items, now);
    }

    pub(crate) fn items_done(&self) -> u64 {
        self.items_done
    }

    pub(crate) fn items_per_second(&self, now: u64) -> f64 {
        self.rate.per_second(now)
    }
}
