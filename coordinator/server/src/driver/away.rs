//! Sessions whose connections are lost: kept for a while, in which they can go on over other ones.

use std::collections::VecDeque;
use std::time::Duration;

use farpool_common::log::{info, warn};
use farpool_coordinator::{AgentId, ClientId};
use farpool_proto::v1::{AgentCommand, AgentEvent, ClientEvent, ClientMessage};
use tonic::Status;

use super::super::clock::nanos;
use super::super::link::{Resumes, shown};
use super::Driver;

/// When to give sessions up that are away.
pub(super) struct Away {
    /// How long they are kept, in ns.
    grace: u64,
    /// Until when, whose, and which connection was lost: a session that has come back has another one. Rising.
    waiting: VecDeque<(u64, Peer, u64)>,
}

#[derive(Clone, Copy)]
pub(super) enum Peer {
    Client(ClientId),
    Agent(AgentId),
}

impl Away {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace: nanos(grace), waiting: VecDeque::new() }
    }

    pub(super) fn next_look(&self) -> Option<u64> {
        self.waiting.front().map(|(until, ..)| *until)
    }

    fn take_due(&mut self, now: u64) -> Option<(Peer, u64)> {
        if self.next_look()? > now {
            return None;
        }
        self.waiting.pop_front().map(|(_, peer, connection)| (peer, connection))
    }
}

impl Driver {
    /// A client's connection is lost. What is there for it waits.
    pub(super) fn client_breaks(&mut self, id: ClientId, why: Status) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.session.identity.is_none() {
            return self.end_client(id, Err(why));
        }
        if let Some(connection) = client.session.lose_connection() {
            self.expect_back(Peer::Client(id), connection);
        }
    }

    /// An agent's connection is lost. It goes on with what it has, and gets nothing new.
    pub(super) fn agent_breaks(&mut self, id: AgentId, why: Status) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        if agent.session.identity.is_none() {
            return self.end_agent(id, Err(why));
        }
        if let Some(connection) = agent.session.lose_connection() {
            self.coordinator.agent_away(id, true, self.now, &mut self.out);
            self.expect_back(Peer::Agent(id), connection);
        }
    }

    pub(super) fn client_resumes(&mut self, resumes: Resumes<ClientEvent, ClientMessage, ClientId>) {
        let id = self.client_ids.get(&(resumes.principal.clone(), resumes.id)).copied();
        let Some((id, client)) = id.and_then(|id| Some((id, self.clients.get_mut(&id)?))) else {
            return self.not_found("client", resumes);
        };
        let address = resumes.address;
        if let Err(status) = client.session.resume(id, resumes) {
            return warn!(self.link.log, address = shown(address), reason = status.message(), "client refused");
        }
        client.begin_to_read();
        info!(self.link.log, address = shown(address), "client resumed");
        // It has said what it has, and may have nothing else to say.
        self.client_has(id);
    }

    pub(super) fn agent_resumes(&mut self, resumes: Resumes<AgentCommand, AgentEvent, AgentId>) {
        let id = self.agent_ids.get(&resumes.id).copied();
        let agent = id.and_then(|id| Some((id, self.agents.get_mut(&id)?)));
        let Some((id, agent)) = agent.filter(|(_, agent)| agent.session.principal == resumes.principal) else {
            return self.not_found("agent", resumes);
        };
        let address = resumes.address;
        if let Err(status) = agent.session.resume(id, resumes) {
            return warn!(self.link.log, address = shown(address), reason = status.message(), "agent refused");
        }
        self.partials.change(agent, 0);
        agent.waits_for_clients = false;
        info!(self.link.log, host = agent.host, address = shown(address), "agent resumed");
        // What it has not taken in waits again.
        agent.unread.begin_again(self.now);
        self.memory.count_unread(agent);
        self.let_report(id);
        self.coordinator.agent_away(id, false, self.now, &mut self.out);
    }

    /// Gives those up who have not come back in time.
    pub(super) fn tend_away(&mut self) {
        while let Some((peer, connection)) = self.away.take_due(self.now) {
            let lost = || Status::unavailable("its connection was lost, and it did not reconnect in time");
            match peer {
                Peer::Client(id) => {
                    if let Some(client) = self.clients.get(&id).filter(|client| client.session.is_away_from(connection))
                    {
                        // Once its pool is closed it has no reason to return.
                        let end = if client.over { Ok(()) } else { Err(lost()) };
                        self.end_client(id, end);
                    }
                }
                Peer::Agent(id) => {
                    if self.agents.get(&id).is_some_and(|agent| agent.session.is_away_from(connection)) {
                        self.end_agent(id, Err(lost()));
                    }
                }
            }
        }
    }

    fn expect_back(&mut self, peer: Peer, connection: u64) {
        self.away.waiting.push_back((self.now.saturating_add(self.away.grace), peer, connection));
    }

    fn not_found<Out, In, Id>(&self, peer: &str, resumes: Resumes<Out, In, Id>)
    where
        Out: farpool_net::SessionMessage,
        In: farpool_net::SessionMessage,
    {
        info!(self.link.log, peer, address = shown(resumes.address), "asked to resume an unknown session");
        resumes.reply.refuse(Status::not_found("the coordinator does not know this session, or has closed it"));
    }
}
