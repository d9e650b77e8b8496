//! Clients' sessions, as the loop sees them.

use std::net::SocketAddr;

use bytes::Bytes;
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, ItemsDone, Output, OutputStream, client_message};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::link::{Joins, Said, shutting_down};
use super::super::sessions::from;
use super::Driver;
use crate::ClientId;

/// Results as small as this are copied when they have to wait, or they would keep the agent's whole frame.
const SMALL_RESULT: usize = 16 << 10;

/// A client's session.
pub(super) struct Client {
    outgoing: Outgoing<ClientEvent>,
    turns: mpsc::Sender<()>,
    pub(super) address: Option<SocketAddr>,
    /// Bytes of the message that opened its pool, which is kept.
    opening: u64,
    /// Bytes of a message that is not whole yet.
    pub(super) partial: u64,
    /// What it is counted with; see [`Memory`](super::memory::Memory).
    pub(super) counted: u64,
    /// Its queue is too long, so its pool is paused.
    paused: bool,
    /// Bytes of workers' output that were left out for that.
    output_left_out: u64,
    /// It is not read for now, since the memory is full.
    pub(super) stopped: bool,
    /// Its turn is over and it waits for the next.
    waits: bool,
    // Gathered in a round. Kept for its memory.
    fresh: Vec<ClientEvent>,
}

impl Client {
    fn new(outgoing: Outgoing<ClientEvent>, turns: mpsc::Sender<()>, address: Option<SocketAddr>) -> Self {
        Self {
            outgoing,
            turns,
            address,
            opening: 0,
            partial: 0,
            counted: 0,
            paused: false,
            output_left_out: 0,
            stopped: false,
            waits: false,
            fresh: Vec::new(),
        }
    }

    /// Bytes that are held for it, beside what the coordinator stores.
    pub(super) fn held(&self) -> u64 {
        self.opening + self.partial + self.outgoing.waiting() as u64
    }

    pub(super) fn tell(&self, body: Body) {
        self.outgoing.push(ClientEvent { body: Some(body) });
    }

    /// Has its next frame read, unless it is stopped.
    pub(super) fn give_turn(&mut self) {
        if self.waits && !self.stopped {
            self.waits = false;
            // There is room, since its last turn is over; or it is gone.
            let _ = self.turns.try_send(());
        }
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
            let text = format!("farpool: {bytes} bytes of the workers' output were not read in time and left out\n");
            let (host, stream) = ("coordinator".to_owned(), OutputStream::Stderr.into());
            self.tell(Body::Output(Output { host, pid: 0, stream, data: text.into() }));
        }
    }
}

impl Driver {
    pub(super) fn client_joins(&mut self, joins: Joins<ClientEvent, ClientMessage, ClientId>) {
        let Joins { outgoing, turns, address, messages, id: reply } = joins;
        if self.drain.is_some() {
            self.link.log.line(format_args!("refused a client {}: shutting down", from(address)));
            return outgoing.fail(shutting_down());
        }
        let id = self.coordinator.connect_client();
        let mut client = Client::new(outgoing, turns, address);
        if let Some(client_message::Body::OpenPool(open)) = messages.first().and_then(|message| message.body.as_ref()) {
            client.opening = open.encoded_len() as u64;
        }
        self.clients.insert(id, client);
        let _ = reply.send(id);
        self.client_says(id, Said::Messages { messages, partial: 0 });
    }

    pub(super) fn client_says(&mut self, id: ClientId, said: Said<ClientMessage>) {
        let (messages, partial) = match said {
            Said::Messages { messages, partial } => (messages, partial as u64),
            Said::Gone(end) => return self.end_client(id, end),
        };
        for message in messages {
            if !self.clients.contains_key(&id) {
                return;
            }
            if let Err(refused) = self.coordinator.client_message(id, message, self.now, &mut self.out) {
                self.end_client(id, Err(Status::invalid_argument(refused.to_string())));
            }
        }
        if let Some(client) = self.clients.get_mut(&id) {
            (client.partial, client.waits) = (partial, true);
            client.give_turn();
            self.memory.count(client);
        }
    }

    /// Ends a session, with the reason if it is not the client's own wish.
    pub(super) fn end_client(&mut self, id: ClientId, end: Result<(), Status>) {
        // What was said to it before the end is still to be sent.
        self.send_to_clients();
        let Some(client) = self.clients.remove(&id) else { return };
        self.memory.forget(&client);
        match end {
            Ok(()) => client.outgoing.finish(),
            Err(status) => {
                let address = from(client.address);
                self.link.log.line(format_args!("ended the session of a client {address}: {}", status.message()));
                client.outgoing.fail(status);
            }
        }
        self.coordinator.client_gone(id, self.now, &mut self.out);
        self.client_has_left(id);
    }

    pub(super) fn send_to_clients(&mut self) {
        for (id, mut event) in self.out.to_clients.drain(..) {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            if client.leaves_out(&event) {
                continue;
            }
            if client.paused {
                unpin(&mut event);
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
        client.outgoing.extend(client.fresh.drain(..));
        self.memory.count(client);
        if over {
            return self.end_client(id, Ok(()));
        }
        if !client.paused && client.outgoing.waiting() > self.queue {
            client.paused = true;
            self.coordinator.pause_client(id, true, self.now, &mut self.out);
        }
    }

    /// The queue of some client has run low, or nobody will read it any more.
    pub(super) fn look_at_queues(&mut self) {
        let mut gone = Vec::new();
        for (&id, client) in &mut self.clients {
            // One that is stopped is not read, so that only its queue shows that it is gone.
            if client.outgoing.is_gone() {
                gone.push(id);
            } else if client.paused && client.outgoing.waiting() <= self.low_queue {
                client.paused = false;
                client.own_up();
                self.coordinator.pause_client(id, false, self.now, &mut self.out);
            }
        }
        gone.into_iter().for_each(|id| self.end_client(id, Ok(())));
    }
}

fn unpin(event: &mut ClientEvent) {
    if let Some(Body::ItemsDone(ItemsDone { data, ends, .. })) = &mut event.body
        && data.len() + ends.len() <= SMALL_RESULT
    {
        (*data, *ends) = (Bytes::copy_from_slice(data), Bytes::copy_from_slice(ends));
    }
}
