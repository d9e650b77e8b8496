//! Clients' sessions, as the loop sees them.

use bytes::Bytes;
use farpool_common::log::{info, warn};
use farpool_coordinator::ClientId;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, OpenPool, Output, OutputStream, client_message};
use prost::Message;
use tonic::Status;

use super::super::end::End;
use super::super::link::{Joins, Said, Says, shown, shutting_down};
use super::super::meter::Reading;
use super::Driver;
use super::acks::{ClientAcks, says};
use super::session::Session;
use super::slow_readers::Waited;

/// A client's session.
pub(super) struct Client {
    pub(super) session: Session<ClientEvent>,
    /// Bytes of the message that opened its pool, which is kept.
    pub(super) opening: u64,
    /// Bytes of a message that is not whole yet.
    pub(super) partial: u64,
    /// What it is counted with; see [`Memory`](super::memory::Memory).
    pub(super) counted: u64,
    /// The part of it that it does not take: the queue if that is too long, and what is overdue.
    pub(super) results: u64,
    /// Its queue is too long, so its pool is paused.
    paused: bool,
    /// Bytes of workers' output that were left out for that.
    output_left_out: u64,
    /// Less than all while the memory is full.
    reading: Reading,
    /// Its turn is over and it waits for the next.
    waits: bool,
    acknowledged: u64,
    pub(super) acks: ClientAcks,
    /// What waited for it when it last took some, while agents wait for that.
    pub(super) waited: Option<Waited>,
    /// Its pool was open before, in another session.
    pub(super) again: bool,
    /// What it held when it was favoured, if that has become more; see [`Memory`](super::memory::Memory).
    pub(super) favoured_from: Option<u64>,
    /// When its turn ended because it sent nothing; None once it has sent something in a later turn.
    pub(super) silent_at: Option<u64>,
    /// Its pool is closed, and everything was said. The session stays until the client has ended it, and so has heard it.
    pub(super) over: bool,
    // Gathered in a round. Kept for its memory.
    fresh: Vec<ClientEvent>,
}

impl Client {
    fn new(session: Session<ClientEvent>) -> Self {
        Self {
            session,
            opening: 0,
            partial: 0,
            counted: 0,
            results: 0,
            paused: false,
            output_left_out: 0,
            reading: Reading::All,
            waits: false,
            acknowledged: 0,
            acks: ClientAcks::default(),
            waited: None,
            again: false,
            favoured_from: None,
            silent_at: None,
            over: false,
            fresh: Vec::new(),
        }
    }

    /// Bytes that are held for it, beside what the coordinator stores.
    pub(super) fn held(&self) -> u64 {
        self.said() + self.sent_and_waiting()
    }

    /// The part of it that the client has said.
    pub(super) fn said(&self) -> u64 {
        self.opening + self.partial
    }

    /// The part of it that was sent and not acknowledged, or waits to be sent.
    pub(super) fn sent_and_waiting(&self) -> u64 {
        self.session.outgoing.bytes() as u64
    }

    /// Its messages that were taken in, as it said last.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Bytes that are to be sent.
    pub(super) fn waiting(&self) -> u64 {
        self.session.outgoing.waiting() as u64
    }

    /// Bytes that were sent to it and that it may have by now. It says so in what is read of it.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.session.outgoing.bytes().saturating_sub(self.session.outgoing.waiting()) as u64
    }

    pub(super) fn tell(&self, body: Body) {
        self.session.outgoing.push(ClientEvent { body: Some(body) });
    }

    /// Whether its queue is too long, so that its pool is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Has its next frame read, unless nothing is.
    pub(super) fn give_turn(&mut self) {
        if self.waits && self.reading != Reading::Nothing {
            self.waits = false;
            self.session.give_turn();
        }
    }

    /// Has so much of it read from now on. It has its turn, if anything is.
    pub(super) fn read(&mut self, reading: Reading) {
        self.reading = reading;
        self.session.read(reading);
        self.give_turn();
    }

    /// Another connection has come.
    pub(super) fn begin_to_read(&mut self) {
        self.session.read(self.reading);
        (self.partial, self.waits) = (0, true);
        self.give_turn();
    }

    /// Output is all that may be left out, and only while the client does not read.
    fn leaves_out(&mut self, event: &ClientEvent) -> bool {
        let Some(Body::Output(output)) = &event.body else { return false };
        if self.paused {
            self.output_left_out += output.data.len() as u64;
        }
        self.paused
    }

    /// Says how much output was left out, if any was.
    fn own_up(&mut self) {
        let bytes = std::mem::take(&mut self.output_left_out);
        if bytes > 0 {
            let text =
                format!("farpool: {bytes} bytes of the workers' output were not read in time and were dropped\n");
            let (host, stream) = ("coordinator".to_owned(), OutputStream::Stderr.into());
            self.tell(Body::Output(Output { host, pid: 0, stream, data: text.into() }));
        }
    }
}

/// What each of a pool's labels takes in memory beside its bytes.
const LABEL_TAKES: u64 = 128;

/// What the message that opens a pool takes in memory.
fn takes(open: &OpenPool) -> u64 {
    open.encoded_len() as u64 + LABEL_TAKES * open.require.len() as u64
}

impl Driver {
    pub(super) fn client_joins(&mut self, joins: Joins<ClientEvent, ClientMessage, ClientId>) {
        let Joins { outgoing, turns, principal, address, messages, passed, id: reply } = joins;
        if self.drain.is_some() {
            info!(self.link.log, address = shown(address), reason = "shutting down", "client refused");
            return outgoing.fail(shutting_down());
        }
        let (opening, own, again) = match messages.first().and_then(|message| message.body.as_ref()) {
            Some(client_message::Body::OpenPool(open)) => (takes(open), open.id.clone(), open.again),
            _ => (0, Bytes::new(), false),
        };
        if let Err(status) = self.admit_opening(opening, again) {
            warn!(self.link.log, address = shown(address), reason = status.message(), "client refused");
            return outgoing.fail(status);
        }
        let id = self.coordinator.connect_client(principal.clone());
        let session = Session::new(outgoing, turns, (principal, address), &own, &passed);
        if let Some(older) = session.key().and_then(|own| self.client_ids.insert(own, id)) {
            self.end_client(older, Err(Status::aborted("the pool was opened in another session")));
        }
        self.memory.opened(opening);
        session.outgoing.set_window(self.memory.acks.window() as usize);
        self.clients.insert(id, Client { opening, again, ..Client::new(session) });
        self.share_windows();
        let _ = reply.send(id);
        let said = Said::Messages { messages, partial: 0 };
        self.client_says(Says { id, connection: 0, said, passed: None });
    }

    pub(super) fn client_says(
        &mut self,
        Says { id, connection, said, passed: _passed }: Says<ClientMessage, ClientId>,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let is_on = client.session.is_on(connection);
        let (messages, partial) = match said {
            Said::Messages { messages, partial } => (messages, partial as u64),
            // How a connection ends that another one has replaced means nothing.
            Said::Gone(_) if !is_on => return,
            Said::Gone(End::Meant) => return self.end_client(id, Ok(())),
            Said::Gone(End::Final(why)) => return self.end_client(id, Err(why)),
            Said::Gone(End::Broken(why)) => return self.client_breaks(id, why),
        };
        self.client_has(id);
        let Some(client) = self.clients.get_mut(&id) else { return };
        // How much it says, and what it holds, if it must not say much.
        let overdue = (self.memory.is_full() && self.memory.acks.listens(client, self.coordinator.is_to_hear(id)))
            .then(|| (says(&messages), self.bytes_of(id)));
        for message in messages {
            // What is said when all is over was on its way by then.
            if self.clients.get(&id).is_none_or(|client| client.over) {
                break;
            }
            if let Err(refused) = self.coordinator.client_message(id, message, self.now, &mut self.out) {
                self.end_client(id, Err(Status::invalid_argument(refused.to_string())));
            }
        }
        let said = overdue.map(|(said, held)| (said, self.bytes_of(id).saturating_sub(held)));
        if let Some(client) = self.clients.get_mut(&id) {
            if let Some((said, more)) = said {
                client.has_said(said, more);
            }
            if is_on {
                (client.partial, client.waits) = (partial, true);
                client.give_turn();
            }
            self.memory.count(client);
        }
    }

    /// Looks at which messages the client says that it has.
    pub(super) fn client_has(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let acknowledged = client.session.outgoing.acknowledged();
        if acknowledged > client.acknowledged {
            (client.acknowledged, client.acks) = (acknowledged, ClientAcks::default());
            self.coordinator.client_acknowledged(id, acknowledged, self.now, &mut self.out);
        }
    }

    /// Ends a session, with the reason if it is not the client's own wish.
    pub(super) fn end_client(&mut self, id: ClientId, end: Result<(), Status>) {
        // What was said to it before the end is still to be sent.
        self.send_to_clients();
        let Some(mut client) = self.clients.remove(&id) else { return };
        self.share_windows();
        self.memory.forget(&mut client);
        self.memory.closed(client.opening);
        if let Some(key) = client.session.key()
            && self.client_ids.get(&key) == Some(&id)
        {
            self.client_ids.remove(&key);
        }
        match end {
            Ok(()) => client.session.outgoing.finish(),
            Err(status) => {
                let address = shown(client.session.address);
                warn!(self.link.log, address, reason = status.message(), "client session closed");
                client.session.outgoing.fail(status);
            }
        }
        self.coordinator.client_gone(id, self.now, &mut self.out);
        self.client_has_left(id);
    }

    pub(super) fn send_to_clients(&mut self) {
        for (id, event) in self.out.to_clients.drain(..) {
            let Some(client) = self.clients.get_mut(&id) else {
                self.detached.post(id, event);
                continue;
            };
            if client.leaves_out(&event) {
                continue;
            }
            if client.fresh.is_empty() {
                self.touched_clients.push(id);
            }
            client.fresh.push(event);
        }
        let mut touched = std::mem::take(&mut self.touched_clients);
        touched.drain(..).for_each(|id| self.push(id));
        self.touched_clients = touched;
    }

    fn push(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let over = client.fresh.last().is_some_and(|event| matches!(event.body, Some(Body::PoolClosed(_))));
        client.session.outgoing.extend(client.fresh.drain(..));
        self.coordinator.client_numbered(id, client.session.outgoing.pushed());
        if over && client.session.identity.is_none() {
            return self.end_client(id, Ok(()));
        }
        if over {
            client.over = true;
            return client.session.outgoing.finish();
        }
        if !client.paused && client.session.outgoing.waiting() > self.queue {
            client.paused = true;
            self.coordinator.pause_client(id, true, self.now, &mut self.out);
        }
        self.memory.count(client);
    }

    /// The queue of some client has run low, or nobody will read it any more.
    pub(super) fn look_at_queues(&mut self) {
        self.with_detached(|detached, turn| detached.look_at_queues(turn));
        let mut gone = Vec::new();
        for (&id, client) in &mut self.clients {
            // One that is stopped is not read, so that only its queue shows that it is gone.
            if client.session.outgoing.is_gone() {
                gone.push(id);
            } else if client.paused && client.session.outgoing.waiting() <= self.low_queue {
                client.paused = false;
                client.own_up();
                self.memory.count(client);
                self.coordinator.pause_client(id, false, self.now, &mut self.out);
            }
        }
        for id in gone {
            self.client_breaks(id, Status::unavailable("the connection is lost"));
        }
        let stopped = self.agents.iter().filter(|(_, agent)| agent.is_stopped() && agent.session.outgoing.is_gone());
        let gone: Vec<_> = stopped.map(|(&id, _)| id).collect();
        for id in gone {
            self.agent_breaks(id, Status::unavailable("the connection is lost"));
        }
    }
}
