//! Events of clients' and agents' sessions that concern several components.

use farpool_common::log::{info, warn};
use farpool_coordinator::{AgentId, ClientId};
use farpool_programs::Digest;
use farpool_proto::v1::{AgentCommand, AgentEvent, ClientEvent, ClientMessage};
use tokio::sync::oneshot;
use tonic::Status;

use super::super::end::End;
use super::super::link::{NewSession, ResumeRequest, SessionInput, address_for_log};
use super::super::refusal::shutting_down;
use super::Driver;
use super::agents::{self, AfterInput};
use super::client::{Client, Role};
use super::clients;
use super::disconnected::Peer;
use super::memory::{Holders, Memory};
use super::programs::{Askable, UploadResult, WantedPrograms};
use super::round::Round;
use super::session::Lost;

impl Driver {
    pub(super) fn begin_client(&mut self, new: NewSession<ClientEvent, ClientMessage, ClientId>) {
        let address = address_for_log(new.address);
        if self.round.drains {
            info!(self.round.link.log, address, reason = "shutting down", "client refused");
            return new.outgoing.fail(shutting_down());
        }
        let opening = clients::ClientOpening::of(&new.messages);
        if let Err(status) = self.admit(opening.bytes, opening.again) {
            warn!(self.round.link.log, address, reason = status.message(), "client refused");
            return new.outgoing.fail(status);
        }
        if self.clients.has_other_role(&new.principal, &opening) {
            let why = "a session with this secret already exists, for another purpose";
            warn!(self.round.link.log, address, reason = why, "client refused");
            return new.outgoing.fail(Status::invalid_argument(why));
        }
        let (input, older) = self.clients.begin_session(&mut self.round, new, &opening);
        if let Some(older) = older {
            self.end_client(older, Err(replaced(opening.role)));
        }
        self.handle_client(input);
    }

    pub(super) fn resume_client(&mut self, request: ResumeRequest<ClientEvent, ClientMessage, ClientId>) {
        if let Some(id) = self.clients.resume(&self.round, request) {
            // The resume has acknowledged messages, and the client may have nothing else to send.
            self.clients.note_acknowledged(&mut self.round, id);
        }
    }

    pub(super) fn handle_client(&mut self, input: SessionInput<ClientMessage, ClientId>) {
        let id = input.id;
        let others = |round: &mut Round, client: &Client, id, messages| {
            self.detached.handle_messages(round, client, id, messages)
        };
        match self.clients.handle_input(&mut self.round, input, others) {
            None => {}
            Some(End::Intended) => self.end_client(id, Ok(())),
            Some(End::Final(why)) => self.end_client(id, Err(why)),
            Some(End::Broken(why)) => self.client_connection_lost(id, why),
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

    /// Ends the sessions that have finished detaching or reading jobs.
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

    pub(super) fn begin_agent(&mut self, new: NewSession<AgentCommand, AgentEvent, AgentId>) {
        let address = address_for_log(new.address);
        let opening = agents::AgentOpening::of(&new.messages);
        if let Err(status) = self.admit(opening.bytes, false) {
            warn!(self.round.link.log, address, reason = status.message(), "agent refused");
            return new.outgoing.fail(status);
        }
        let slots = opening.slots;
        let input = self.agents.begin_session(&mut self.round, new, opening);
        let id = input.id;
        self.handle_agent(input);
        if let Some((older, why)) = self.agents.welcome(&self.round, id, slots) {
            self.end_agent(older, Err(why));
        }
    }

    pub(super) fn resume_agent(&mut self, request: ResumeRequest<AgentCommand, AgentEvent, AgentId>) {
        if let Some(id) = self.agents.resume(&self.round, request) {
            self.resume_reading(id);
            self.round.coordinator.agent_away(id, false, self.round.now, &mut self.round.out);
        }
    }

    pub(super) fn handle_agent(&mut self, input: SessionInput<AgentEvent, AgentId>) {
        let (id, is_full) = (input.id, self.is_full_of_results());
        match self.agents.handle_input(&mut self.round, input, is_full) {
            AfterInput::Nothing => {}
            AfterInput::TurnEnds => self.resume_reading(id),
            AfterInput::Ends(End::Intended) => self.end_agent(id, Ok(())),
            AfterInput::Ends(End::Final(why)) => self.end_agent(id, Err(why)),
            AfterInput::Ends(End::Broken(why)) => self.agent_connection_lost(id, why),
        }
    }

    pub(super) fn end_agent(&mut self, id: AgentId, end: Result<(), Status>) {
        self.send_to_agents();
        self.agents.end(&mut self.round, id, end);
    }

    pub(super) fn send_to_agents(&mut self) {
        let not_reading = self.agents.send(&mut self.round);
        not_reading.into_iter().for_each(|id| self.end_agent(id, Err(agents::does_not_read())));
    }

    /// Checks queues after some have run low or lost their reader.
    pub(super) fn check_queues(&mut self) {
        self.detached.check_queues(&self.round);
        let lost = || Status::unavailable("the connection is lost");
        for id in self.clients.check_queues(&mut self.round) {
            self.client_connection_lost(id, lost());
        }
        for id in self.agents.gone() {
            self.agent_connection_lost(id, lost());
        }
    }

    /// Ends the sessions that were not resumed in time.
    pub(super) fn end_expired_sessions(&mut self) {
        while let Some((peer, connection)) = self.disconnected.take_due(self.round.now) {
            let lost = || Status::unavailable("its connection was lost, and it did not reconnect in time");
            match peer {
                Peer::Client(id) => {
                    if let Some(client) = self.clients.get(id).filter(|client| client.session.has_lost(connection)) {
                        // After its pool was closed, it has no reason to resume.
                        let end = if client.finished { Ok(()) } else { Err(lost()) };
                        self.end_client(id, end);
                    }
                }
                Peer::Agent(id) => {
                    if self.agents.has_lost(id, connection) {
                        self.end_agent(id, Err(lost()));
                    }
                }
            }
        }
    }

    pub(super) fn limit_memory(&mut self) {
        let (memory, mut holders, round) = self.memory();
        let ended = memory.update(round, &mut holders);
        self.round.memory = self.memory.room();
        if let Some((id, why)) = ended {
            self.end_client(id, Err(why));
        }
    }

    /// Reads agents again when clients have read their results, and ends the sessions of clients that do not.
    pub(super) fn limit_slow_readers(&mut self) {
        let is_full = self.is_full_of_results();
        if let Some((id, why)) = self.slow_readers.slowest(&self.round, &mut self.clients, is_full) {
            self.end_client(id, Err(why));
        }
        let released = self.slow_readers.take_released(&mut self.clients, &mut self.agents, is_full);
        released.into_iter().for_each(|id| self.resume_reading(id));
    }

    /// Ends agents that are too slow with a large message while others wait, and lets the next ones send.
    pub(super) fn limit_large_messages(&mut self) {
        while let Some(id) = self.agents.take_overdue_sender(&self.round) {
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
            UploadResult::Arrived => self.detached.program_arrived(&self.round, digest),
            UploadResult::Failed(why) => self.detached.program_failed(&self.round, digest, &why),
            UploadResult::Pending => {}
        }
    }

    /// Returns the programs, and the clients that can be asked for them.
    pub(super) fn programs(&mut self) -> (&mut WantedPrograms, Askable<'_>, &Round) {
        let Self { programs, clients, detached, round, .. } = self;
        (programs, Askable { clients, internal: detached.internal_clients().collect() }, round)
    }

    /// Keeps or ends the session of a client whose connection is lost.
    fn client_connection_lost(&mut self, id: ClientId, why: Status) {
        match self.clients.lose_connection(id) {
            Lost::Ends => self.end_client(id, Err(why)),
            Lost::MayResume(connection) => self.disconnected.add(Peer::Client(id), connection, self.round.now),
            Lost::Known => {}
        }
    }

    fn agent_connection_lost(&mut self, id: AgentId, why: Status) {
        match self.agents.lose_connection(&mut self.round, id) {
            Lost::Ends => self.end_agent(id, Err(why)),
            Lost::MayResume(connection) => self.disconnected.add(Peer::Agent(id), connection, self.round.now),
            Lost::Known => {}
        }
    }

    /// Lets an agent be read, now or when there is room.
    fn resume_reading(&mut self, id: AgentId) {
        let is_full = self.is_full_of_results();
        self.agents.resume_reading(&self.round, id, is_full);
    }

    fn is_full_of_results(&mut self) -> bool {
        let (memory, mut holders, round) = self.memory();
        memory.is_full_of_results(round, &mut holders)
    }

    /// Checks that a session may begin with a message of this size. `again`: there was room for it before.
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

/// The reason for ending a session whose client has begun another one with the same secret.
fn replaced(role: Role) -> Status {
    Status::aborted(match role {
        Role::Pool => "the pool was opened in another session",
        Role::Detaches => "the job continues on another stream",
        Role::Reads => "the job is read in another session",
    })
}
