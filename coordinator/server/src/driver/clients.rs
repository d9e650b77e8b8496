//! All clients' sessions, and how much memory they are counted with.
//!
//! A message is held until its client acknowledges it. So each client has a window: while more than that is unacknowledged, no further
//! message is sent, and messages that wait count as the client's queue. Messages in the window do not count against the memory's bound.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use farpool_common::log::{info, warn};
use farpool_coordinator::{ClientId, Principal};
use farpool_proto::v1::{ClientEvent, ClientMessage, client_message};
use prost::Message;
use tonic::Status;

use super::super::end::End;
use super::super::link::{NewSession, ResumeRequest, SessionEvent, SessionInput, address_for_log};
use super::super::meter::Reading;
use super::super::settings::Settings;
use super::client::{Client, Role, cost_of};
use super::round::Round;
use super::session::{Identity, Lost, Session, SessionKey, not_found};

pub(super) struct Clients {
    sessions: BTreeMap<ClientId, Client>,
    /// By the key that resumes them on another connection.
    ids: BTreeMap<SessionKey, ClientId>,
    /// A pool is paused when more bytes than `queue` wait for its client, and resumed at `low_queue`.
    queue: usize,
    low_queue: usize,
    /// How many bytes each client may leave unacknowledged.
    window: u64,
    /// The sum of what all clients are counted with. It is never less than what they hold, since queues become shorter by themselves.
    counted: u64,
    /// The part of `counted` that clients do not read, nearly all of it results. See
    /// [`slow_readers`](super::slow_readers).
    results: u64,
    /// The size of the messages that opened their pools.
    openings: u64,
    // Kept for its capacity.
    touched: Vec<ClientId>,
}

/// The bounds of a client's window in bytes. Within them, all clients share this part of the memory.
const WINDOW: RangeInclusive<u64> = 1 << 20..=10 << 20;
const WINDOWS_PART: u64 = 4;

/// The memory that each of a pool's labels takes in addition to its bytes.
const LABEL_TAKES: u64 = 128;

/// The facts in the first message of a client's session.
#[derive(Default)]
pub(super) struct ClientOpening {
    pub(super) role: Role,
    /// The memory that the message takes.
    pub(super) bytes: u64,
    /// The pool was open before, in another session.
    pub(super) again: bool,
    id: Bytes,
}

impl ClientOpening {
    pub(super) fn of(messages: &[ClientMessage]) -> Self {
        match messages.first().and_then(|message| message.body.as_ref()) {
            Some(client_message::Body::OpenPool(open)) => {
                let bytes = open.encoded_len() as u64 + LABEL_TAKES * open.require.len() as u64;
                let role = if open.detached { Role::Detaches } else { Role::Pool };
                Self { role, bytes, again: open.again, id: open.id.clone() }
            }
            Some(client_message::Body::Attach(attach)) => {
                let (bytes, id) = (attach.encoded_len() as u64, attach.session.clone());
                Self { role: Role::Reads, bytes, again: false, id }
            }
            _ => Self::default(),
        }
    }
}

impl Clients {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            sessions: BTreeMap::new(),
            ids: BTreeMap::new(),
            queue: settings.queue(),
            low_queue: settings.low_queue(),
            window: *WINDOW.end(),
            counted: 0,
            results: 0,
            openings: 0,
            touched: Vec::new(),
        }
    }

    /// Returns whether a session with the same secret has another role. A new session would end it.
    pub(super) fn has_other_role(&self, by: &Principal, opening: &ClientOpening) -> bool {
        let key = Identity::try_from(&opening.id[..]).ok().map(|own| (by.clone(), own));
        let older = key.and_then(|key| self.sessions.get(self.ids.get(&key)?));
        older.is_some_and(|older| !older.finished && older.role != opening.role)
    }

    /// Begins a session. Returns its first messages, and an older session of the same secret, which the caller has to end.
    pub(super) fn begin_session(
        &mut self,
        round: &mut Round,
        new: NewSession<ClientEvent, ClientMessage, ClientId>,
        opening: &ClientOpening,
    ) -> (SessionInput<ClientMessage, ClientId>, Option<ClientId>) {
        let NewSession { outgoing, turns, principal, address, messages, passed, id: reply } = new;
        let id = round.coordinator.connect_client(principal.clone());
        let session = Session::new(outgoing, turns, (principal, address), &opening.id, &passed);
        let older = session.key().and_then(|own| self.ids.insert(own, id));
        session.outgoing.set_window(self.window as usize);
        self.openings += opening.bytes;
        self.sessions.insert(id, Client::new(session, opening.role, opening.bytes, opening.again));
        self.share_windows(round.memory.bound);
        let _ = reply.send(id);
        (
            SessionInput { id, connection: 0, event: SessionEvent::Messages { messages, partial: 0 }, passed: None },
            older,
        )
    }

    /// Resumes a session on another connection. Returns its client.
    pub(super) fn resume(
        &mut self,
        round: &Round,
        request: ResumeRequest<ClientEvent, ClientMessage, ClientId>,
    ) -> Option<ClientId> {
        let id = self.ids.get(&(request.principal.clone(), request.id)).copied();
        let Some((id, client)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            not_found(&round.link, "client", request);
            return None;
        };
        let address = address_for_log(request.address);
        if let Err(status) = client.session.resume(id, request) {
            warn!(round.link.log, address, reason = status.message(), "client refused");
            return None;
        }
        client.begin_to_read();
        info!(round.link.log, address, "client resumed");
        Some(id)
    }

    /// Handles what a client has sent. `others` gets the messages of sessions without a pool. Returns how the session ends, if it does.
    pub(super) fn handle_input(
        &mut self,
        round: &mut Round,
        SessionInput { id, connection, event, passed: _passed }: SessionInput<ClientMessage, ClientId>,
        others: impl FnOnce(&mut Round, &Client, ClientId, Vec<ClientMessage>),
    ) -> Option<End> {
        let is_current = self.sessions.get(&id)?.session.is_current(connection);
        let (messages, partial) = match event {
            SessionEvent::Messages { messages, partial } => (messages, partial as u64),
            // The end of a connection that was replaced means nothing.
            SessionEvent::Gone(_) if !is_current => return None,
            SessionEvent::Gone(end) => return Some(end),
        };
        self.note_acknowledged(round, id);
        // If it may only send little: how much it sends, and how much it held before.
        let overdue = (round.memory.is_full && self.must_send_little(round, id))
            .then(|| (cost_of(&messages), round.bytes_of(id)));
        let client = self.sessions.get(&id)?;
        // After the pool's end, only messages that were in flight arrive.
        match client.role {
            _ if client.finished => {}
            Role::Pool => {
                for message in messages {
                    if let Err(refused) = round.coordinator.client_message(id, message, round.now, &mut round.out) {
                        return Some(End::Final(Status::invalid_argument(refused.to_string())));
                    }
                }
            }
            Role::Detaches | Role::Reads => others(round, client, id, messages),
        }
        let sent = overdue.map(|(sent, held)| (sent, round.bytes_of(id).saturating_sub(held)));
        let client = self.sessions.get_mut(&id)?;
        client.begun = true;
        if let Some((sent, more)) = sent {
            client.count_sent(sent, more);
        }
        if is_current {
            client.end_turn(partial);
        }
        self.count(id);
        None
    }

    /// Handles the client's acknowledgement.
    pub(super) fn note_acknowledged(&mut self, round: &mut Round, id: ClientId) {
        if let Some(acknowledged) = self.sessions.get_mut(&id).and_then(Client::note_acknowledged) {
            round.coordinator.client_acknowledged(id, acknowledged, round.now, &mut round.out);
        }
    }

    /// Notes that a client's connection is lost.
    pub(super) fn lose_connection(&mut self, id: ClientId) -> Lost {
        self.sessions.get_mut(&id).map_or(Lost::Known, |client| client.session.lose_connection())
    }

    /// Ends a session, with the reason unless the client ended it. Returns false if there is none.
    pub(super) fn end(&mut self, round: &mut Round, id: ClientId, end: Result<(), Status>) -> bool {
        let Some(client) = self.sessions.remove(&id) else { return false };
        self.share_windows(round.memory.bound);
        self.counted -= client.counted;
        self.results -= client.results;
        self.openings -= client.opening;
        if let Some(key) = client.session.key()
            && self.ids.get(&key) == Some(&id)
        {
            self.ids.remove(&key);
        }
        match end {
            Ok(()) => client.session.outgoing.finish(),
            Err(status) => {
                let address = address_for_log(client.session.address);
                warn!(round.link.log, address, reason = status.message(), "client session closed");
                client.session.outgoing.fail(status);
            }
        }
        round.coordinator.client_gone(id, round.now, &mut round.out);
        true
    }

    /// Puts the coordinator's messages into the clients' queues, all messages to a client at once. `others` gets messages to clients that
    /// have no session here. Returns the sessions that are over.
    pub(super) fn send(&mut self, round: &mut Round, mut others: impl FnMut(ClientId, ClientEvent)) -> Vec<ClientId> {
        for (id, event) in round.out.to_clients.drain(..) {
            let Some(client) = self.sessions.get_mut(&id) else {
                others(id, event);
                continue;
            };
            if client.gather(event) {
                self.touched.push(id);
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        let over = touched.drain(..).filter(|&id| self.send_gathered(round, id)).collect();
        self.touched = touched;
        over
    }

    /// Checks queues after some have run low or lost their reader. Returns the clients whose connections are lost.
    pub(super) fn check_queues(&mut self, round: &mut Round) -> Vec<ClientId> {
        let (mut gone, mut low) = (Vec::new(), Vec::new());
        for (&id, client) in &mut self.sessions {
            // A stopped client is not read, so only its queue shows that it is gone.
            if client.session.outgoing.is_gone() {
                gone.push(id);
            } else if client.is_paused() && client.session.outgoing.waiting() <= self.low_queue {
                client.unpause();
                round.coordinator.pause_client(id, false, round.now, &mut round.out);
                low.push(id);
            }
        }
        low.into_iter().for_each(|id| self.count(id));
        gone
    }

    /// Sets how much of a client is read from now on.
    pub(super) fn read(&mut self, id: ClientId, reading: Reading) {
        if let Some(client) = self.sessions.get_mut(&id) {
            client.read(reading);
        }
    }

    /// Counts again what clients hold.
    pub(super) fn count_all(&mut self) {
        (self.counted, self.results) = (0, 0);
        for client in self.sessions.values_mut() {
            (client.counted, client.results) = (0, 0);
            count(client, self.window, &mut self.counted, &mut self.results);
        }
    }

    /// Returns the sum of what all clients are counted with.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// Returns the part of that sum that clients do not read.
    pub(super) fn results(&self) -> u64 {
        self.results
    }

    /// Returns the size of the messages that opened their pools.
    pub(super) fn openings(&self) -> u64 {
        self.openings
    }

    /// Returns how many bytes are held for clients, including those in flight.
    pub(super) fn held(&self) -> u64 {
        self.sessions.values().map(Client::held).sum()
    }

    /// Returns how many bytes are held for a client, including its jobs.
    pub(super) fn held_by(&self, round: &Round, id: ClientId) -> u64 {
        self.sessions.get(&id).map_or(0, |client| client.counted) + round.bytes_of(id)
    }

    /// Returns whether the client's window holds messages back, or a place waits for its acknowledgement.
    pub(super) fn is_overdue_or_awaited(&self, round: &Round, id: ClientId) -> bool {
        round.coordinator.has_pending_places(id)
            || self.sessions.get(&id).is_some_and(|client| client.is_overdue(self.window))
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.sessions.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.sessions.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.sessions.iter().map(|(&id, client)| (id, client))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ClientId, &mut Client)> {
        self.sessions.iter_mut().map(|(&id, client)| (id, client))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ClientId> {
        self.sessions.keys().copied()
    }

    /// Returns the sessions that have a pool, or had one.
    pub(super) fn with_pools(&self) -> impl Iterator<Item = &Client> {
        self.sessions.values().filter(|client| client.role == Role::Pool)
    }

    /// Returns whether the client may only send little, because it is overdue.
    fn must_send_little(&mut self, round: &Round, id: ClientId) -> bool {
        let must = self.is_overdue_or_awaited(round, id);
        if !must && let Some(client) = self.sessions.get_mut(&id) {
            client.acks.sent = 0;
        }
        must
    }

    /// Queues a client's messages of this round. Returns whether its session is over.
    fn send_gathered(&mut self, round: &mut Round, id: ClientId) -> bool {
        let Some(client) = self.sessions.get_mut(&id) else { return false };
        let over = client.send_gathered();
        round.coordinator.client_numbered(id, client.session.outgoing.pushed());
        if over {
            return self.close(id);
        }
        if !client.is_paused() && client.session.outgoing.waiting() > self.queue {
            client.pause();
            round.coordinator.pause_client(id, true, round.now, &mut round.out);
        }
        self.count(id);
        false
    }

    /// Notes that the last message of a session was queued. Returns whether the session is over now, because nobody can resume it.
    pub(super) fn close(&mut self, id: ClientId) -> bool {
        let Some(client) = self.sessions.get_mut(&id) else { return false };
        if client.session.identity.is_none() {
            return true;
        }
        client.finished = true;
        // Its first message is no longer kept.
        self.openings -= std::mem::take(&mut client.opening);
        client.session.outgoing.finish();
        self.count(id);
        false
    }

    /// Ends all sessions: the server shuts down.
    pub(super) fn dismiss(&mut self, why: &Status) {
        std::mem::take(&mut self.sessions).into_values().for_each(|client| client.session.outgoing.fail(why.clone()));
    }

    /// Counts a client again. Call this when it may hold more than before.
    fn count(&mut self, id: ClientId) {
        if let Some(client) = self.sessions.get_mut(&id) {
            count(client, self.window, &mut self.counted, &mut self.results);
        }
    }

    /// Adapts the windows to the number of clients.
    fn share_windows(&mut self, memory: u64) {
        let share = memory / WINDOWS_PART / self.sessions.len().max(1) as u64;
        let window = share.clamp(*WINDOW.start(), *WINDOW.end());
        if std::mem::replace(&mut self.window, window) != window {
            self.sessions.values().for_each(|client| client.session.outgoing.set_window(window as usize));
        }
    }
}

/// Counts a client again.
fn count(client: &mut Client, window: u64, counted: &mut u64, results: &mut u64) {
    *counted -= client.counted;
    *results -= client.results;
    let is_served = client.is_served();
    let beyond = if is_served { 0 } else { client.unacknowledged().saturating_sub(window) };
    let waiting = if is_served { 0 } else { client.waiting() };
    client.counted = client.sent_by_client() + beyond + waiting;
    client.results = beyond + if client.is_paused() { waiting } else { 0 };
    *counted += client.counted;
    *results += client.results;
}
