//! All agents' sessions, and what is counted for them.
//!
//! Credit bounds what an agent is given to run, but not what it is told of pools and jobs that come and go, and that is as large as
//! clients make it: a job's function, a pool's environment. So each agent has a window, as clients have
//! ([`clients`](super::clients)): while more than that is sent and not acknowledged, no further message is begun for it. What waits
//! behind it counts towards the memory, so that clients are stopped until agents have caught up. What a window lets through
//! does not count: most of it are items, which count as long as they have no outcome.
//!
//! Agents acknowledge what they have received, whatever becomes of it, and are read while clients are stopped: so all of them catch up.
//! One that does not read is disconnected, and sooner the more waits for it. An agent that is not read itself cannot
//! acknowledge anything, nor can one whose connection is lost: these have time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use farpool_common::log::{info, warn};
use farpool_coordinator::AgentId;
use farpool_proto::v1::{AgentCommand, AgentEvent, agent_event};
use prost::Message;
use tonic::Status;

use super::super::end::End;
use super::super::link::{Joins, Resumes, Said, Says, shown};
use super::super::settings::Settings;
use super::agent::Agent;
use super::company::Company;
use super::partials::Partials;
use super::round::Round;
use super::session::{Identity, Lost, Session, not_found};

pub(super) struct Agents {
    sessions: BTreeMap<AgentId, Agent>,
    /// By what they are known on other connections.
    ids: BTreeMap<Identity, AgentId>,
    /// Bytes that each agent may leave unacknowledged.
    window: usize,
    /// What agents are counted with that is to be sent to them: never less than it is.
    unread: u64,
    /// What they have said of themselves, in bytes.
    openings: u64,
    partials: Partials,
    company: Company,
    // Kept for its memory.
    touched: Vec<AgentId>,
}

/// What follows from what an agent says.
pub(super) enum Heard {
    Nothing,
    /// Its turn is over.
    TurnEnds,
    /// Its stream ends.
    Ends(End),
}

/// What a hello takes in memory, by its bytes beyond those of one without chunks: chunks that an agent holds are small and many.
const HELLO_TAKES: u64 = 8;
const SMALL_HELLO: usize = 4 << 10;

/// An agent's window in bytes. All agents together may have such a part of the memory, as far as that is not too little for each.
const WINDOW: RangeInclusive<u64> = 1 << 20..=10 << 20;
const WINDOWS_PART: u64 = 8;

/// What each agent may send while the memory is full of results: such a part of it.
const LITTLE_PART: u64 = 64;

/// What an agent says of itself takes so much memory.
pub(super) fn opening(messages: &[AgentEvent]) -> u64 {
    messages.first().map_or(0, Message::encoded_len).saturating_sub(SMALL_HELLO) as u64 * HELLO_TAKES
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
            company: Company::default(),
            touched: Vec::new(),
        }
    }

    /// Begins a session. Returns what it has said so far.
    pub(super) fn join(
        &mut self,
        round: &mut Round,
        joins: Joins<AgentCommand, AgentEvent, AgentId>,
    ) -> Says<AgentEvent, AgentId> {
        let Joins { outgoing, turns, principal, address, messages, passed, id: reply } = joins;
        let id = round.coordinator.connect_agent();
        let (host, own) = match messages.first().and_then(|message| message.body.as_ref()) {
            Some(agent_event::Body::Hello(hello)) => (hello.host.clone(), hello.id.clone()),
            _ => (address.map_or_else(String::new, |address| address.to_string()), Bytes::new()),
        };
        let (session, opening) =
            (Session::new(outgoing, turns, (principal, address), &own, &passed), opening(&messages));
        session.outgoing.set_window(self.window);
        self.openings += opening;
        self.sessions.insert(id, Agent::new(session, host, opening, round.now));
        self.share_windows(round.memory.bound);
        let _ = reply.send(id);
        Says { id, connection: 0, said: Said::Messages { messages, partial: 0 }, passed: None }
    }

    /// Welcomes an agent whose hello was taken in, before the coordinator says anything to it. Returns an older session of the same process,
    /// which ends: only that process has the secret, so the session is left over from a broken connection.
    pub(super) fn welcome(&mut self, round: &Round, id: AgentId, slots: u32) -> Option<(AgentId, Status)> {
        let agent = self.sessions.get(&id)?;
        agent.welcome();
        info!(round.link.log, host = agent.host, address = shown(agent.session.address), slots, "agent joined");
        let older = self.ids.insert(agent.session.identity?, id)?;
        Some((older, Status::aborted(format!("an agent of the same id has joined from {}", agent.host))))
    }

    /// Another connection goes on with a session. Returns whose: its turn is over.
    pub(super) fn resume(
        &mut self,
        round: &Round,
        resumes: Resumes<AgentCommand, AgentEvent, AgentId>,
    ) -> Option<AgentId> {
        let id = self.ids.get(&resumes.id).copied();
        let agent = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?)));
        let Some((id, agent)) = agent.filter(|(_, agent)| agent.session.principal == resumes.principal) else {
            not_found(&round.link, "agent", resumes);
            return None;
        };
        let address = shown(resumes.address);
        if let Err(status) = agent.session.resume(id, resumes) {
            warn!(round.link.log, address, reason = status.message(), "agent refused");
            return None;
        }
        self.partials.change(agent, 0);
        info!(round.link.log, host = agent.host, address, "agent resumed");
        agent.begin_to_read(round.now);
        count(agent, &mut self.unread);
        Some(id)
    }

    /// Takes in what an agent says. `is_full`: the memory is, of results.
    pub(super) fn take_in(
        &mut self,
        round: &mut Round,
        Says { id, connection, said, passed: _passed }: Says<AgentEvent, AgentId>,
        is_full: bool,
    ) -> Heard {
        let Some(agent) = self.sessions.get_mut(&id) else { return Heard::Nothing };
        let is_on = agent.session.is_on(connection);
        let (messages, partial) = match said {
            Said::Messages { messages, partial } => (messages, partial as u64),
            // How a connection ends that another one has replaced means nothing.
            Said::Gone(_) if !is_on => return Heard::Nothing,
            Said::Gone(end) => return Heard::Ends(end),
        };
        for event in messages {
            agent.note(&event, is_full);
            if let Err(refused) = round.coordinator.agent_event(id, event, round.now, &mut round.out) {
                return Heard::Ends(End::Final(Status::invalid_argument(refused.to_string())));
            }
        }
        if !is_on {
            return Heard::Nothing;
        }
        self.partials.change(agent, partial);
        Heard::TurnEnds
    }

    /// Has an agent read on, now or when there is room for what it sends. `is_full`: the memory is, of results.
    ///
    /// The agent that is read on alone is read until its message is whole; see [`Partials`].
    pub(super) fn let_report(&mut self, round: &Round, id: AgentId, is_full: bool) {
        let Some(agent) = self.sessions.get_mut(&id) else { return };
        let has_sent_enough = agent.partial + agent.reported_while_full > round.memory.bound / LITTLE_PART;
        if is_full && has_sent_enough && !self.partials.is_alone(id) {
            agent.waits_for_clients = true;
        } else {
            self.partials.give_turn(id, agent, round.now);
        }
    }

    /// Forgets what agents have sent while the memory was full of results. Returns those that were not read meanwhile.
    pub(super) fn forget_what_was_reported(&mut self) -> Vec<AgentId> {
        let mut waiting = Vec::new();
        for (&id, agent) in &mut self.sessions {
            agent.reported_while_full = 0;
            if std::mem::take(&mut agent.waits_for_clients) {
                waiting.push(id);
            }
        }
        waiting
    }

    /// An agent's connection is lost. It goes on with what it has, and gets nothing new.
    pub(super) fn lose_connection(&mut self, round: &mut Round, id: AgentId) -> Lost {
        let lost = self.sessions.get_mut(&id).map_or(Lost::Known, |agent| agent.session.lose_connection());
        if let Lost::MayResume(_) = lost {
            round.coordinator.agent_away(id, true, round.now, &mut round.out);
        }
        lost
    }

    /// Ends a session, with the reason if it is not the agent's own wish.
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

    /// Puts what the coordinator says into the agents' queues, for each all at once. Returns those that do not read.
    pub(super) fn send(&mut self, round: &mut Round) -> Vec<AgentId> {
        for (id, command) in round.out.to_agents.drain(..) {
            if self.sessions.get_mut(&id).is_some_and(|agent| agent.gather(command)) {
                self.touched.push(id);
            }
        }
        let mut deaf = Vec::new();
        for id in self.touched.drain(..) {
            let Some(agent) = self.sessions.get_mut(&id) else { continue };
            let reads = agent.send_gathered(round.now, round.memory.bound);
            count(agent, &mut self.unread);
            if let Some(at) = agent.flush_at {
                self.company.expect(id, at);
            }
            if !reads {
                deaf.push(id);
            }
        }
        deaf
    }

    /// Sends what has waited long enough for company.
    pub(super) fn tend_company(&mut self, now: u64) {
        while let Some(id) = self.company.take_due(now) {
            let Some(agent) = self.sessions.get_mut(&id) else { continue };
            match agent.flush_at {
                Some(at) if at > now => self.company.expect(id, at),
                Some(_) => agent.flush(),
                None => {}
            }
        }
    }

    /// Returns the agents that do not read: while clients are stopped there may be nothing more to say to them.
    pub(super) fn deaf(&mut self, round: &Round) -> Vec<AgentId> {
        if !round.memory.is_full {
            return Vec::new();
        }
        let reads = |agent: &mut Agent| {
            agent.look_whether_it_reads(round.now);
            agent.reads(round.now, round.memory.bound)
        };
        self.sessions.iter_mut().filter_map(|(&id, agent)| (!reads(agent)).then_some(id)).collect()
    }

    /// Takes an agent that has begun a large message, and is too slow with the rest of it while others wait.
    pub(super) fn take_late(&mut self, round: &Round) -> Option<AgentId> {
        // A client may have to wait too: see `Memory`.
        let holds_up = self.partials.holds_up(round.memory.is_full);
        holds_up.then(|| self.partials.take_late(&self.sessions, round.now)).flatten()
    }

    /// Has the next agent read on where one is through with a large message, or has gone.
    pub(super) fn let_next_send(&mut self, round: &Round) {
        self.partials.let_next_send(&mut self.sessions, round.now);
    }

    /// Returns the agents that are stopped, so that only their queues show that they are gone.
    pub(super) fn gone(&self) -> Vec<AgentId> {
        let is_gone = |agent: &Agent| agent.is_stopped() && agent.session.outgoing.is_gone();
        self.sessions.iter().filter(|(_, agent)| is_gone(agent)).map(|(&id, _)| id).collect()
    }

    /// Whether an agent's connection is this one, and lost.
    pub(super) fn is_away_from(&self, id: AgentId, connection: u64) -> bool {
        self.sessions.get(&id).is_some_and(|agent| agent.session.is_away_from(connection))
    }

    /// When to look at the latest.
    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        self.company.next_look().into_iter().chain(self.partials.next_look(now)).min()
    }

    /// Counts anew what waits for agents.
    pub(super) fn count_all(&mut self) {
        self.sessions.values_mut().for_each(|agent| count(agent, &mut self.unread));
    }

    /// What agents are counted with that is to be sent to them.
    pub(super) fn unread(&self) -> u64 {
        self.unread
    }

    /// Bytes that wait to be sent to agents now.
    pub(super) fn unread_now(&self) -> u64 {
        self.sessions.values().map(Agent::unread).sum()
    }

    /// What agents have said of themselves, in bytes.
    pub(super) fn openings(&self) -> u64 {
        self.openings
    }

    /// Bytes of agents' messages that are not whole.
    pub(super) fn partial(&self) -> u64 {
        self.partials.bytes()
    }

    /// Whether a large message is coming in.
    pub(super) fn is_crowded(&self) -> bool {
        self.partials.is_crowded()
    }

    /// Returns how many agents there are on this host.
    pub(super) fn on_host(&self, host: &str) -> usize {
        self.sessions.values().filter(|agent| agent.host == host).count()
    }

    /// The server ends.
    pub(super) fn dismiss(&mut self, why: &Status) {
        std::mem::take(&mut self.sessions).into_values().for_each(|agent| agent.session.outgoing.fail(why.clone()));
    }

    /// Gives agents larger or smaller windows when some have come or gone.
    fn share_windows(&mut self, memory: u64) {
        let share = memory / WINDOWS_PART / self.sessions.len().max(1) as u64;
        let window = share.clamp(*WINDOW.start(), *WINDOW.end()) as usize;
        if std::mem::replace(&mut self.window, window) != window {
            self.sessions.values().for_each(|agent| agent.session.outgoing.set_window(window));
        }
    }
}

/// Why the session of an agent ends that does not read.
pub(super) fn does_not_read() -> Status {
    Status::resource_exhausted("the agent does not read its messages")
}

/// Counts anew what waits for an agent.
fn count(agent: &mut Agent, unread: &mut u64) {
    *unread -= agent.counted;
    agent.counted = agent.unread();
    *unread += agent.counted;
}
