//! A job on its way in, and the stream that it comes on.

use std::collections::VecDeque;
use std::net::SocketAddr;

use farpool_net::Outgoing;
use farpool_programs::Digest;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage};
use prost::Message;
use tokio::sync::mpsc;

use super::super::super::link::StreamId;

/// A job that is not complete.
#[derive(Default)]
pub(super) struct Receiving {
    /// None: its client may come back.
    pub(super) stream: Option<Stream>,
    /// Since when there is none.
    pub(super) since: u64,
    /// Its number in messages, and how long an item may be.
    pub(super) named: u64,
    pub(super) payload_limit: u64,
    pub(super) program: Option<Digest>,
    /// The program, as long as it is not here.
    pub(super) wants: Option<Digest>,
    /// How many items are durable, as was said on its stream; none: that was not said yet.
    pub(super) told: Option<u64>,
    /// What came and has no room in the store yet.
    pub(super) parked: VecDeque<ClientMessage>,
    /// Bytes of a message that is not whole.
    pub(super) partial: u64,
    /// Its turn is over and it waits for the next.
    pub(super) waits: bool,
    /// No more items come, and that is in the store.
    pub(super) input_ended: bool,
    pub(super) completes: bool,
}

/// The stream that a job comes on.
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) outgoing: Outgoing<ClientEvent>,
    pub(super) turns: mpsc::Sender<()>,
    pub(super) address: Option<SocketAddr>,
}

impl Stream {
    pub(super) fn tell(&self, body: Body) {
        self.outgoing.push(ClientEvent { body: Some(body) });
    }

    pub(super) fn is_gone(&self) -> bool {
        self.outgoing.is_gone()
    }
}

impl Receiving {
    pub(super) fn held(&self) -> u64 {
        let parked: usize = self.parked.iter().map(Message::encoded_len).sum();
        self.partial + parked as u64
    }

    /// Whether somebody waits for the disk to take something of it. `items`: so many have come.
    pub(super) fn waits_for_disk(&self, items: Option<u64>) -> bool {
        self.stream.is_some() && (self.told != items || self.input_ended || !self.parked.is_empty())
    }

    /// Since when nobody goes on with it, if it is so.
    pub(super) fn away_since(&self) -> Option<u64> {
        (self.stream.is_none() && !self.completes).then_some(self.since)
    }
}
