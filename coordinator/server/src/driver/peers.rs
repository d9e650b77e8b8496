//! Events of clients' and agents' sessions that concern several components.

use farpool_common::log::{info, warn};
use farpool_coordinator::{AgentId, ClientId};
use farpool_programs::Digest;
use farpool_proto::v1::{AgentCommand, AgentEvent, ClientEvent, ClientMessage};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::end::End;
use super::super::link::{Joins, Resumes, Says, shown};
use super::super::refusal::shutting_down;
use super::Driver;
use super::agents::{self, Heard};
use super::away::Peer;
use super::client::{Client, Role};
use super::clients;
use super::memory::{Holders, Memory};
use super::programs::{Askable, Programs, Upload};
use super::round::Round;
use super::session::Lost;

impl Driver {
    pub(super) fn client_joins(&mut self, joins: Joins<ClientEvent, ClientMessage, ClientId>) {
        let address = shown(joins.address);
        if self.round.drains {
            info!(self.round.link.log, address, reason = "shutting down", "client refused");
            return joins.outgoing.fail(shutting_down());
        }
        let opening = clients::Opening::of(&joins.messages);
        if let Err(status) = self.admit(opening.bytes, opening.again) {
            warn!(self.round.link.log, address, reason = status.message(), "client refused");
            return joins.outgoing.fail(status);
        }
        let (says, older) = self.clients.join(&mut self.round, joins, &opening);
        if let Some(older) = older {
            self.end_client(older, Err(replaced(opening.role)));
        }
        self.client_says(says);
    }

    pub(super) fn client_resumes(&mut self, resumes: Resumes<ClientEvent, ClientMessage, ClientId>) {
        if let Some(id) = self.clients.resume(&self.round, resumes) {
            // The resume has acknowledged messages, and the client may have nothing else to send.
            self.clients.note_acknowledged(&mut self.round, id);
        }
    }

    pub(super) fn client_says(&mut self, says: Says<ClientMessage, ClientId>) {
        let id = says.id;
        let others = |round: &mut Round, client: &Client, id, messages| self.detached.says(round, client, id, messages);
        match self.clients.take_in(&mut self.round, says, others) {
            None => {}
            Some(End::Meant) => self.end_client(id, Ok(())),
            Some(End::Final(why)) => self.end_client(id, Err(why)),
            Some(End::Broken(why)) => self.client_breaks(id, why),
        }
    }

    /// Ends a session, with the reason unless the client ended it.
    pub(super) fn end_client(&mut self, id: ClientId, end: Result<(), Status>) {
        // Earlier messages to it are sent first.
        self.send_to_clients();
        if self.clients.end(&mut self.round, id, end) {
            self.detached.leave(&self.round, id);
            let (programs, askable, round) = self.programs();
            programs.client_has_left(round, &askable, id);
        }
    }

    /// Ends the sessions that detach or read jobs and are through.
    pub(super) fn end_detached(&mut self) {
        for (id, end) in self.detached.take_ends() {
            match end {
                Ok(()) if !self.clients.close(id) => {}
                end => self.end_client(id, end),
            }
        }
    }

    pub(super) fn send_to_clients(&mut self) {
        let over = self.clients.send(&mut self.round, |id, event| self.detached.post(id, event));
        over.into_iter().for_each(|id| self.end_client(id, Ok(())));
    }

    pub(super) fn agent_joins(&mut self, joins: Joins<AgentCommand, AgentEvent, AgentId>) {
        let address = shown(joins.address);
        let opening = agents::Opening::of(&joins.messages);
        if let Err(status) = self.admit(opening.bytes, false) {
            warn!(self.round.link.log, address, reason = status.message(), "agent refused");
            return joins.outgoing.fail(status);
        }
        let slots = opening.slots;
        let says = self.agents.join(&mut self.round, joins, opening);
        let id = says.id;
        self.agent_says(says);
        if let Some((older, why)) = self.agents.welcome(&self.round, id, slots) {
            self.end_agent(older, Err(why));
        }
    }

    pub(super) fn agent_resumes(&mut self, resumes: Resumes<AgentCommand, AgentEvent, AgentId>) {
        if let Some(id) = self.agents.resume(&self.round, resumes) {
            self.let_report(id);
            self.round.coordinator.agent_away(id, false, self.round.now, &mut self.round.out);
        }
    }

    pub(super) fn agent_says(&mut self, says: Says<AgentEvent, AgentId>) {
        let (id, is_full) = (says.id, self.is_full_of_results());
        match self.agents.take_in(&mut self.round, says, is_full) {
            Heard::Nothing => {}
            Heard::TurnEnds => self.let_report(id),
            Heard::Ends(End::Meant) => self.end_agent(id, Ok(())),
            Heard::Ends(End::Final(why)) => self.end_agent(id, Err(why)),
            Heard::Ends(End::Broken(why)) => self.agent_breaks(id, why),
        }
    }

    pub(super) fn end_agent(&mut self, id: AgentId, end: Result<(), Status>) {
        self.send_to_agents();
        self.agents.end(&mut self.round, id, end);
    }

    pub(super) fn send_to_agents(&mut self) {
        let deaf = self.agents.send(&mut self.round);
        deaf.into_iter().for_each(|id| self.end_agent(id, Err(agents::does_not_read())));
    }

    /// Checks queues: some have run low or lost their reader.
    pub(super) fn look_at_queues(&mut self) {
        self.detached.look_at_queues(&self.round);
        let lost = || Status::unavailable("the connection is lost");
        for id in self.clients.look_at_queues(&mut self.round) {
            self.client_breaks(id, lost());
        }
        for id in self.agents.gone() {
            self.agent_breaks(id, lost());
        }
    }

    /// Ends the sessions that were not resumed in time.
    pub(super) fn end_those_away_for_too_long(&mut self) {
        while let Some((peer, connection)) = self.away.take_due(self.round.now) {
            let lost = || Status::unavailable("its connection was lost, and it did not reconnect in time");
            match peer {
                Peer::Client(id) => {
                    if let Some(client) = self.clients.get(id).filter(|client| client.session.is_away_from(connection))
                    {
                        // After its pool was closed, it has no reason to resume.
                        let end = if client.over { Ok(()) } else { Err(lost()) };
                        self.end_client(id, end);
                    }
                }
                Peer::Agent(id) => {
                    if self.agents.is_away_from(id, connection) {
                        self.end_agent(id, Err(lost()));
                    }
                }
            }
        }
    }

    pub(super) fn tend_memory(&mut self) {
        let (memory, mut holders, round) = self.memory();
        let ends = memory.tend(round, &mut holders);
        self.round.memory = self.memory.room();
        if let Some((id, why)) = ends {
            self.end_client(id, Err(why));
        }
    }

    /// Reads agents again when clients have taken their results, and ends clients that do not take theirs.
    pub(super) fn tend_slow_readers(&mut self) {
        let is_full = self.is_full_of_results();
        if let Some((id, why)) = self.slow_readers.slowest(&self.round, &mut self.clients, is_full) {
            self.end_client(id, Err(why));
        }
        let let_go = self.slow_readers.take_those_let_go(&mut self.clients, &mut self.agents, is_full);
        let_go.into_iter().for_each(|id| self.let_report(id));
    }

    /// Ends agents that are too slow with a large message while others wait, and lets the next ones send.
    pub(super) fn tend_large_messages(&mut self) {
        while let Some(id) = self.agents.take_late(&self.round) {
            let message = "the memory is full, and the agent took too long to send the rest of a message";
            self.end_agent(id, Err(Status::resource_exhausted(message)));
        }
        self.agents.let_next_send(&self.round);
    }

    pub(super) fn begin_upload(&mut self, digest: Digest, reply: oneshot::Sender<Result<(), Status>>) {
        let may = self.programs.begin_upload(digest, self.detached.wants(digest));
        let begins = may.is_ok();
        if reply.send(may).is_err() && begins {
            self.end_upload(digest, Err(Status::cancelled("the client is gone")));
        }
    }

    pub(super) fn end_upload(&mut self, digest: Digest, outcome: Result<(), Status>) {
        let (programs, askable, round) = self.programs();
        match programs.end_upload(round, &askable, digest, outcome) {
            Upload::Came => self.detached.program_came(&self.round, digest),
            Upload::Failed(why) => self.detached.program_failed(&self.round, digest, &why),
            Upload::Pending => {}
        }
    }

    /// Returns the programs, and the clients that can be asked for them.
    pub(super) fn programs(&mut self) -> (&mut Programs, Askable<'_>, &Round) {
        let Self { programs, clients, detached, round, .. } = self;
        (programs, Askable { clients, played: detached.played().collect() }, round)
    }

    /// Keeps or ends the session of a client whose connection is lost.
    fn client_breaks(&mut self, id: ClientId, why: Status) {
        match self.clients.lose_connection(id) {
            Lost::Ends => self.end_client(id, Err(why)),
            Lost::MayResume(connection) => self.away.expect_back(Peer::Client(id), connection, self.round.now),
            Lost::Known => {}
        }
    }

    fn agent_breaks(&mut self, id: AgentId, why: Status) {
        match self.agents.lose_connection(&mut self.round, id) {
            Lost::Ends => self.end_agent(id, Err(why)),
            Lost::MayResume(connection) => self.away.expect_back(Peer::Agent(id), connection, self.round.now),
            Lost::Known => {}
        }
    }

    /// Lets an agent be read, now or when there is room.
    fn let_report(&mut self, id: AgentId) {
        let is_full = self.is_full_of_results();
        self.agents.let_report(&self.round, id, is_full);
    }

    fn is_full_of_results(&mut self) -> bool {
        let (memory, mut holders, round) = self.memory();
        memory.is_full_of_results(round, &mut holders)
    }

    /// Checks that a session may begin with a message of so many bytes. `again`: there was room for it before.
    fn admit(&mut self, bytes: u64, again: bool) -> Result<(), Status> {
        let (memory, holders, round) = self.memory();
        memory.admit(round, &holders, bytes, again)
    }

    /// Returns the memory, and everything that uses it.
    fn memory(&mut self) -> (&mut Memory, Holders<'_>, &Round) {
        let Self { memory, clients, agents, detached, round, .. } = self;
        (memory, Holders { clients, agents, detached }, round)
    }
}

/// Why a session ends whose client has begun another one with the same secret.
fn replaced(role: Role) -> Status {
    Status::aborted(match role {
        Role::Pool => "the pool was opened in another session",
        Role::Detaches => "the job continues on another stream",
        Role::Reads => "the job is read in another session",
    })
}
