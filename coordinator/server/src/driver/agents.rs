//! All agents' sessions, and how much memory they are counted with.
//!
//! Credit bounds the items of an agent, but not the messages about pools and jobs. Those are as large as clients make them: a job's
//! function, a pool's environment. So each agent has a window, like each client ([`clients`](super::clients)): while more than that is
//! unacknowledged, no further message is sent. Messages that wait count towards the memory, so clients are stopped until agents catch
//! up. Messages in the window do not count. Most of them are items, which count until they have an outcome.
//!
//! Agents acknowledge every message on arrival, and are read while clients are stopped, so all of them catch up. An agent that does not
//! read is disconnected, sooner if much waits for it. An agent that is not read, or whose connection is lost, cannot acknowledge: it
//! gets more time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use farpool_common::log::{info, warn};
use farpool_coordinator::AgentId;
use farpool_proto::v1::{AgentCommand, AgentEvent, agent_event};
use prost::Message;
use tonic::Status;

use super::super::end::End;
use super::super::link::{NewSession, ResumeRequest, SessionEvent, SessionInput, address_for_log};
use super::super::settings::Settings;
use super::agent::Agent;
use super::delayed::DelayedSends;
use super::partials::Partials;
use super::round::Round;
use super::session::{Identity, Lost, Session, not_found};

pub(super) struct Agents {
    sessions: BTreeMap<AgentId, Agent>,
    /// By the id that resumes them on another connection.
    ids: BTreeMap<Identity, AgentId>,
    /// How many bytes each agent may leave unacknowledged.
    window: usize,
    /// The sum of what all agents are counted with: the bytes that wait to be sent to them, or more.
    unread: u64,
    /// The size of their hellos, in bytes.
    openings: u64,
    partials: Partials,
    delayed: DelayedSends,
    // Kept for its capacity.
    touched: Vec<AgentId>,
}

/// The consequence of an agent's messages.
pub(super) enum AfterInput {
    Nothing,
    /// Its turn is over.
    TurnEnds,
    /// Its stream ends.
    Ends(End),
}

/// How many bytes of memory each byte of a hello takes, beyond the size of a small hello: its chunks are small and
/// many.
const HELLO_TAKES: u64 = 8;
const SMALL_HELLO: usize = 4 << 10;

/// The bounds of an agent's window in bytes. Within them, all agents share this part of the memory.
const WINDOW: RangeInclusive<u64> = 1 << 20..=10 << 20;
const WINDOWS_PART: u64 = 8;

/// The part of the memory that each agent may send while the memory is full of results.
const REPORT_PART_WHILE_FULL: u64 = 64;

/// The facts in an agent's first message.
#[derive(Default)]
pub(super) struct AgentOpening {
    /// The memory that the message takes.
    pub(super) bytes: u64,
    pub(super) slots: u32,
    /// `None`: the message is not a hello.
    host: Option<String>,
    id: Bytes,
}

impl AgentOpening {
    pub(super) fn of(messages: &[AgentEvent]) -> Self {
        let Some(message) = messages.first() else { return Self::default() };
        let bytes = message.encoded_len().saturating_sub(SMALL_HELLO) as u64 * HELLO_TAKES;
        match &message.body {
            Some(agent_event::Body::Hello(hello)) => {
                Self { bytes, slots: hello.slots, host: Some(hello.host.clone()), id: hello.id.clone() }
            }
            _ => Self { bytes, ..Self::default() },
        }
    }
}

impl Agents {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            sessions: BTreeMap::new(),
            ids: BTreeMap::new(),
            window: usize::MAX,
            unread: 0,
            openings: 0,
            partials: Partials::new(settings.memory, settings.limits.first_message),
            delayed: DelayedSends::default(),
            touched: Vec::new(),
        }
    }

    /// Begins a session. Returns its first messages.
    pub(super) fn begin_session(
        &mut self,
        round: &mut Round,
        new: NewSession<AgentCommand, AgentEvent, AgentId>,
        opening: AgentOpening,
    ) -> SessionInput<AgentEvent, AgentId> {
        let NewSession { outgoing, turns, principal, address, messages, passed, id: reply } = new;
        let id = round.coordinator.connect_agent();
        let host = opening.host.or_else(|| address.map(|address| address.to_string())).unwrap_or_default();
        let session = Session::new(outgoing, turns, (principal, address), &opening.id, &passed);
        session.outgoing.set_window(self.window);
        self.openings += opening.bytes;
        self.sessions.insert(id, Agent::new(session, host, opening.bytes, round.now));
        self.share_windows(round.memory.bound);
        let _ = reply.send(id);
        SessionInput { id, connection: 0, event: SessionEvent::Messages { messages, partial: 0 }, passed: None }
    }

    /// Welcomes an agent whose hello was handled, before the coordinator sends it anything else. Returns an older session of the same
    /// process, which has to end: only that process has the secret, so the session is left over from a broken connection.
    pub(super) fn welcome(&mut self, round: &Round, id: AgentId, slots: u32) -> Option<(AgentId, Status)> {
        let agent = self.sessions.get(&id)?;
        agent.welcome();
        info!(
            round.link.log,
            host = agent.host,
            address = address_for_log(agent.session.address),
            slots,
            "agent joined"
        );
        let older = self.ids.insert(agent.session.identity?, id)?;
        Some((older, Status::aborted(format!("an agent of the same id has joined from {}", agent.host))))
    }

    /// Resumes a session on another connection. Returns its agent, whose turn is over.
    pub(super) fn resume(
        &mut self,
        round: &Round,
        request: ResumeRequest<AgentCommand, AgentEvent, AgentId>,
    ) -> Option<AgentId> {
        let id = self.ids.get(&request.id).copied();
        let agent = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?)));
        let Some((id, agent)) = agent.filter(|(_, agent)| agent.session.principal == request.principal) else {
            not_found(&round.link, "agent", request);
            return None;
        };
        let address = address_for_log(request.address);
        if let Err(status) = agent.session.resume(id, request) {
            warn!(round.link.log, address, reason = status.message(), "agent refused");
            return None;
        }
        self.partials.change(agent, 0);
        info!(round.link.log, host = agent.host, address, "agent resumed");
        agent.begin_to_read(round.now);
        count(agent, &mut self.unread);
        Some(id)
    }

    /// Handles what an agent has sent. `is_full`: the memory is full of results.
    pub(super) fn handle_input(
        &mut self,
        round: &mut Round,
        SessionInput { id, connection, event, passed: _passed }: SessionInput<AgentEvent, AgentId>,
        is_full: bool,
    ) -> AfterInput {
        let Some(agent) = self.sessions.get_mut(&id) else { return AfterInput::Nothing };
        let is_current = agent.session.is_current(connection);
        let (messages, partial) = match event {
            SessionEvent::Messages { messages, partial } => (messages, partial as u64),
            // The end of a connection that was replaced means nothing.
            SessionEvent::Gone(_) if !is_current => return AfterInput::Nothing,
            SessionEvent::Gone(end) => return AfterInput::Ends(end),
        };
        for event in messages {
            agent.note(&event, is_full);
            if let Err(refused) = round.coordinator.agent_event(id, event, round.now, &mut round.out) {
                return AfterInput::Ends(End::Final(Status::invalid_argument(refused.to_string())));
            }
        }
        if !is_current {
            return AfterInput::Nothing;
        }
        self.partials.change(agent, partial);
        AfterInput::TurnEnds
    }

    /// Lets an agent be read, now or when there is room. `is_full`: the memory is full of results.
    ///
    /// The agent that is read alone is read until its message is complete; see [`Partials`].
    pub(super) fn resume_reading(&mut self, round: &Round, id: AgentId, is_full: bool) {
        let Some(agent) = self.sessions.get_mut(&id) else { return };
        let has_sent_enough = agent.partial + agent.reported_while_full > round.memory.bound / REPORT_PART_WHILE_FULL;
        if is_full && has_sent_enough && !self.partials.is_alone(id) {
            agent.waits_for_clients = true;
        } else {
            self.partials.give_turn(id, agent, round.now);
        }
    }

    /// Resets how much agents have sent while the memory was full of results. Returns those that were stopped for it.
    pub(super) fn reset_reported(&mut self) -> Vec<AgentId> {
        let mut waiting = Vec::new();
        for (&id, agent) in &mut self.sessions {
            agent.reported_while_full = 0;
            if std::mem::take(&mut agent.waits_for_clients) {
                waiting.push(id);
            }
        }
        waiting
    }

    /// Notes that an agent's connection is lost. The agent keeps running what it has, and gets nothing new.
    pub(super) fn lose_connection(&mut self, round: &mut Round, id: AgentId) -> Lost {
        let lost = self.sessions.get_mut(&id).map_or(Lost::Known, |agent| agent.session.lose_connection());
        if let Lost::MayResume(_) = lost {
            round.coordinator.agent_away(id, true, round.now, &mut round.out);
        }
        lost
    }

    /// Ends a session, with the reason unless the agent ended it.
    pub(super) fn end(&mut self, round: &mut Round, id: AgentId, end: Result<(), Status>) {
        let Some(mut agent) = self.sessions.remove(&id) else { return };
        self.share_windows(round.memory.bound);
        self.unread -= agent.counted;
        self.partials.change(&mut agent, 0);
        self.openings -= agent.opening;
        if let Some(own) = agent.session.identity
            && self.ids.get(&own) == Some(&id)
        {
            self.ids.remove(&own);
        }
        let (host, log) = (&agent.host, &round.link.log);
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
        round.coordinator.agent_gone(id, round.now, &mut round.out);
    }

    /// Puts the coordinator's messages into the agents' queues, all messages to an agent at once. Returns the agents that do not read.
    pub(super) fn send(&mut self, round: &mut Round) -> Vec<AgentId> {
        for (id, command) in round.out.to_agents.drain(..) {
            if self.sessions.get_mut(&id).is_some_and(|agent| agent.gather(command)) {
                self.touched.push(id);
            }
        }
        let mut not_reading = Vec::new();
        for id in self.touched.drain(..) {
            let Some(agent) = self.sessions.get_mut(&id) else { continue };
            let reads = agent.send_gathered(round.now, round.memory.bound);
            count(agent, &mut self.unread);
            if let Some(at) = agent.flush_at {
                self.delayed.add(id, at);
            }
            if !reads {
                not_reading.push(id);
            }
        }
        not_reading
    }

    /// Sends the messages that were delayed long enough.
    pub(super) fn send_delayed(&mut self, now: u64) {
        while let Some(id) = self.delayed.take_due(now) {
            let Some(agent) = self.sessions.get_mut(&id) else { continue };
            match agent.flush_at {
                Some(at) if at > now => self.delayed.add(id, at),
                Some(_) => agent.flush(),
                None => {}
            }
        }
    }

    /// Returns the agents that do not read. While clients are stopped, there may be no new message that would reveal them.
    pub(super) fn not_reading(&mut self, round: &Round) -> Vec<AgentId> {
        if !round.memory.is_full {
            return Vec::new();
        }
        let reads = |agent: &mut Agent| {
            agent.note_reading(round.now);
            agent.reads(round.now, round.memory.bound)
        };
        self.sessions.iter_mut().filter_map(|(&id, agent)| (!reads(agent)).then_some(id)).collect()
    }

    /// Takes the agent whose large message is too slow while others wait.
    pub(super) fn take_overdue_sender(&mut self, round: &Round) -> Option<AgentId> {
        // A client may wait for it too: see `Memory`.
        let blocks_others = self.partials.blocks_others(round.memory.is_full);
        blocks_others.then(|| self.partials.take_overdue_sender(&self.sessions, round.now)).flatten()
    }

    /// Lets the next agents send their large messages if there is room.
    pub(super) fn let_next_send(&mut self, round: &Round) {
        self.partials.let_next_send(&mut self.sessions, round.now);
    }

    /// Returns the stopped agents whose connections are lost: they are not read, so only their queues show it.
    pub(super) fn gone(&self) -> Vec<AgentId> {
        let is_gone = |agent: &Agent| agent.is_stopped() && agent.session.outgoing.is_gone();
        self.sessions.iter().filter(|(_, agent)| is_gone(agent)).map(|(&id, _)| id).collect()
    }

    /// Returns whether this is the agent's current connection, and it is lost.
    pub(super) fn has_lost(&self, id: AgentId, connection: u64) -> bool {
        self.sessions.get(&id).is_some_and(|agent| agent.session.has_lost(connection))
    }

    /// Returns when to check delayed messages and slow agents.
    pub(super) fn next_check(&self, now: u64) -> Option<u64> {
        self.delayed.next_check().into_iter().chain(self.partials.next_check(now)).min()
    }

    /// Counts again what waits for agents.
    pub(super) fn count_all(&mut self) {
        self.sessions.values_mut().for_each(|agent| count(agent, &mut self.unread));
    }

    /// Returns the sum of what all agents are counted with.
    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    /// Returns how many bytes wait to be sent to agents at the moment.
    pub(super) fn unread_now(&self) -> u64 {
        self.sessions.values().map(Agent::unread).sum()
    }

    /// Returns the size of their hellos, in bytes.
    pub(super) fn openings(&self) -> u64 {
        self.openings
    }

    /// Returns the size of all incomplete messages in bytes.
    pub(super) fn partial(&self) -> u64 {
        self.partials.bytes()
    }

    /// Returns whether an agent is read alone, because its message is large.
    pub(super) fn is_crowded(&self) -> bool {
        self.partials.is_crowded()
    }

    /// Returns the number of agents on this host.
    pub(super) fn on_host(&self, host: &str) -> usize {
        self.sessions.values().filter(|agent| agent.host == host).count()
    }

    /// Ends all sessions: the server shuts down.
    pub(super) fn dismiss(&mut self, why: &Status) {
        std::mem::take(&mut self.sessions).into_values().for_each(|agent| agent.session.outgoing.fail(why.clone()));
    }

    /// Adapts the windows to the number of agents.
    fn share_windows(&mut self, memory: u64) {
        let share = memory / WINDOWS_PART / self.sessions.len().max(1) as u64;
        let window = share.clamp(*WINDOW.start(), *WINDOW.end()) as usize;
        if std::mem::replace(&mut self.window, window) != window {
            self.sessions.values().for_each(|agent| agent.session.outgoing.set_window(window));
        }
    }
}

/// Returns the reason for ending the session of an agent that does not read.
pub(super) fn does_not_read() -> Status {
    Status::resource_exhausted("the agent does not read its messages")
}

/// Counts again what waits for an agent.
fn count(agent: &mut Agent, unread: &mut u64) {
    *unread -= agent.counted;
    agent.counted = agent.unread();
    *unread += agent.counted;
}
