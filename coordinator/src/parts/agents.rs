//! Sessions with agents, and the mail for them.

use std::collections::BTreeMap;

use farpool_core::Slab;

use super::former::HeldPools;
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
    /// Agents that have said hello. If an agent has two sessions, the newer one.
    by_identity: BTreeMap<Identity, AgentId>,
    /// Agents with mail from this round.
    with_mail: Vec<AgentId>,
}

/// An agent's session.
#[derive(Default)]
pub(crate) struct Agent {
    /// `None`: it has not said hello.
    hello: Option<Hello>,
    /// Whether it is leaving and gets nothing new.
    draining: bool,
    /// Whether its connection is lost. It may reconnect, and gets nothing new meanwhile.
    away: bool,
    /// Why its workers die before they can serve; empty: it is healthy.
    unhealthy: String,
    credit: Credit,
    joined_at: u64,
    items_done: u64,
    rate: Rate,
    mail: Mail,
    /// What it runs for sessions that have ended.
    pub(crate) held: HeldPools,
    pub(crate) reports: Reports,
}

/// How much an agent wants to hold.
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

    /// Returns the agent, if it has said hello.
    pub(crate) fn greeted_mut(&mut self, id: AgentId) -> Option<&mut Agent> {
        self.all.get_mut(id).filter(|agent| agent.hello.is_some())
    }

    /// Returns all agents that have said hello.
    pub(crate) fn greeted(&self) -> impl Iterator<Item = (AgentId, &Agent, &Hello)> {
        self.all.iter().filter_map(|(id, agent)| Some((id, agent, agent.hello.as_ref()?)))
    }

    /// Returns the session of the agent with this identity.
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
        agent.held = HeldPools::new(std::mem::take(&mut hello.held));
        agent.hello = Some(hello);
        agent.joined_at = now;
    }

    /// The session has ended. Returns the agent's hello, if there was one.
    pub(crate) fn remove(&mut self, id: AgentId) -> Option<Hello> {
        let hello = self.all.remove(id)?.hello?;
        if let Some(identity) = &hello.id {
            self.by_identity.remove(identity);
        }
        Some(hello)
    }

    /// Returns the agents that hold the pool, and with how many workers; 0: as many as they have slots.
    pub(crate) fn holders(&self, pool: &PoolKey) -> Vec<(AgentId, u32)> {
        self.greeted().filter_map(|(id, agent, _)| Some((id, agent.held.workers_of(pool)?))).collect()
    }

    /// Returns the agents that hold something that was neither claimed nor given up.
    pub(crate) fn holding(&self) -> Vec<AgentId> {
        self.all.iter().filter(|(_, agent)| !agent.held.is_empty()).map(|(id, _)| id).collect()
    }

    /// Returns the mail that the agent gets at the end of the round.
    #[inline]
    pub(crate) fn mail_for(&mut self, id: AgentId) -> Option<&mut Mail> {
        let mail = &mut self.all.get_mut(id)?.mail;
        if mail.is_empty() {
            self.with_mail.push(id);
        }
        Some(mail)
    }

    /// Sends the mail of this round.
    pub(crate) fn flush(&mut self, out: &mut Outbox) {
        for id in self.with_mail.drain(..) {
            let Some(Agent { mail, .. }) = self.all.get_mut(id) else { continue };
            // Cancellations go first: they make room for what the agent gets.
            for take in [Mail::take_cancelled, Mail::take_assigned, Mail::take_retracted] {
                if let Some(body) = take(mail) {
                    out.agent(id, body);
                }
            }
        }
    }

    /// Sends the cancelled chunks at once: the agent must drop them before their jobs end.
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

    /// Whether it is leaving and gets nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining
    }

    /// Marks it as leaving. Returns false if it was.
    pub(crate) fn drain(&mut self) -> bool {
        !std::mem::replace(&mut self.draining, true)
    }

    /// Whether its connection is lost and it may reconnect.
    pub(crate) fn is_away(&self) -> bool {
        self.away
    }

    /// Sets whether its connection is lost. Returns its credit from now on; `None`: nothing has changed.
    pub(crate) fn set_away(&mut self, away: bool) -> Option<Credit> {
        let is_news = std::mem::replace(&mut self.away, away) != away;
        is_news.then(|| if away { Credit::default() } else { self.credit })
    }

    /// Sets how much it wants to hold. Returns false if it gets nothing because it is away.
    pub(crate) fn set_credit(&mut self, credit: Credit) -> bool {
        self.credit = credit;
        !self.away
    }

    /// Returns why its workers die before they can serve; empty: it is healthy.
    pub(crate) fn unhealthy(&self) -> &str {
        &self.unhealthy
    }

    /// Sets why its workers die before they can serve; empty: it is healthy. Returns whether its health has changed.
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
