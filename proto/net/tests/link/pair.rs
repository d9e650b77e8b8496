//! A client and its coordinator, reduced to their session.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_net::{Incoming, Opening, Outgoing, outgoing};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body as Request;
use farpool_proto::v1::{ClientEvent, ClientMessage, Items, ItemsDone, Resume};
use tokio::sync::Notify;
use tonic::Status;

use crate::wire::{Inbound, Wire, now, receive};

pub(crate) const LIMIT: u64 = 64 << 20;
const ID: &[u8] = b"0123456789abcdef";

/// Both ends. Each message has the number of messages that its sender sent before.
pub(crate) struct Pair {
    pub(crate) client: Outgoing<ClientMessage>,
    pub(crate) coordinator: Outgoing<ClientEvent>,
    connection: Option<Connection>,
    pub(crate) sent: [u64; 2],
    pub(crate) received: [u64; 2],
}

struct Connection {
    up: Wire<ClientMessage>,
    down: Wire<ClientEvent>,
    client: Incoming<ClientEvent>,
    coordinator: Incoming<ClientMessage>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let (client, frames) = outgoing(0, Arc::new(Notify::new()));
        let mut up = Wire::new(frames);
        client.push(request(0, 10));
        up.carry(1);
        let Opening::New { messages, rest } = open(up.inbound()).expect("the stream begins without an error") else {
            panic!("the session is not resumed")
        };
        assert!(messages == [request(0, 10)]);
        let (coordinator, frames) = outgoing(0, Arc::new(Notify::new()));
        let down = Wire::new(frames);
        let connection = Connection {
            client: client.incoming(down.inbound(), LIMIT),
            coordinator: rest.incoming(&coordinator),
            up,
            down,
        };
        Self { client, coordinator, connection: Some(connection), sent: [1, 0], received: [1, 0] }
    }

    pub(crate) fn request(&mut self, bytes: usize) {
        self.client.push(request(self.sent[0], bytes));
        self.sent[0] += 1;
    }

    pub(crate) fn event(&mut self, bytes: usize) {
        self.coordinator.push(event(self.sent[1], bytes));
        self.sent[1] += 1;
    }

    /// Carries frames to the coordinator; returns how many.
    pub(crate) fn carry_up(&mut self, count: usize) -> usize {
        self.connection.as_mut().map_or(0, |connection| connection.up.carry(count))
    }

    pub(crate) fn carry_down(&mut self, count: usize) -> usize {
        self.connection.as_mut().map_or(0, |connection| connection.down.carry(count))
    }

    /// The coordinator reads what has arrived; returns how many messages, if it was a frame.
    pub(crate) fn receive_up(&mut self) -> Option<usize> {
        let messages = receive(&mut self.connection.as_mut()?.coordinator)?;
        for message in &messages {
            let Some(Request::Items(items)) = &message.body else { panic!("unexpected message: {message:?}") };
            assert_eq!(items.first, self.received[0]);
            assert_eq!(items.job, items.data.len() as u64);
            self.received[0] += 1;
        }
        assert_eq!(self.coordinator.received(), self.received[0]);
        Some(messages.len())
    }

    pub(crate) fn receive_down(&mut self) -> Option<usize> {
        let messages = receive(&mut self.connection.as_mut()?.client)?;
        for message in &messages {
            let Some(Event::ItemsDone(done)) = &message.body else { panic!("unexpected message: {message:?}") };
            assert_eq!(done.first, self.received[1]);
            assert_eq!(done.job, done.data.len() as u64);
            self.received[1] += 1;
        }
        assert_eq!(self.client.received(), self.received[1]);
        Some(messages.len())
    }

    pub(crate) fn cut(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        connection.up.cut();
        connection.down.cut();
        assert!(self.client.is_gone() && self.coordinator.is_gone());
        assert!(now(connection.client.next()).expect("the stream ends").is_err());
        assert!(!connection.client.peer_broke_protocol());
    }

    /// Resumes on another connection, unless this breaks too after this many frames. The old one need not be cut.
    pub(crate) fn reconnect(&mut self, breaks: usize) {
        self.connection = self.try_to_reconnect(breaks);
    }

    fn try_to_reconnect(&self, breaks: usize) -> Option<Connection> {
        let mut up = Wire::new(self.client.resume(Bytes::from_static(ID)));
        assert_eq!(up.carry(2), 1, "the client waits for the answer");
        if breaks == 0 {
            return None;
        }
        let Opening::Resume { resume, rest } = open(up.inbound()).expect("the stream begins without an error") else {
            panic!("the session is resumed")
        };
        let Resume { secret, version, received } = resume;
        assert_eq!((&*secret, version), (ID, Some(farpool_proto::version())));
        let mut down = Wire::new(self.coordinator.reconnect(received).expect("the client has received what was sent"));
        let coordinator = rest.incoming(&self.coordinator);
        if breaks == 1 {
            return None;
        }
        // More than the answer may arrive at once.
        down.carry(breaks - 1);
        let client =
            now(self.client.resumed(down.inbound(), LIMIT)).expect("there is an answer").expect("the answer is valid");
        assert!(!self.client.is_gone() && !self.coordinator.is_gone());
        Some(Connection { up, down, client, coordinator })
    }

    /// Carries everything there is, and reads it.
    pub(crate) fn settle(&mut self) {
        while self.carry_up(1) + self.carry_down(1) > 0 {
            while self.receive_up().is_some() || self.receive_down().is_some() {}
        }
    }
}

pub(crate) fn open(inbound: Inbound<ClientMessage>) -> Result<Opening<ClientMessage>, Status> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be created");
    runtime.block_on(Opening::read(inbound, LIMIT, Duration::from_millis(20)))
}

pub(crate) fn request(number: u64, bytes: usize) -> ClientMessage {
    let items = Items { job: bytes as u64, first: number, data: vec![7; bytes].into(), ends: Bytes::new() };
    ClientMessage { body: Some(Request::Items(items)) }
}

pub(crate) fn event(number: u64, bytes: usize) -> ClientEvent {
    let done = ItemsDone {
        job: bytes as u64,
        first: number,
        data: vec![7; bytes].into(),
        ends: Bytes::new(),
        failed: false,
        attempts: 0,
    };
    ClientEvent { body: Some(Event::ItemsDone(done)) }
}
