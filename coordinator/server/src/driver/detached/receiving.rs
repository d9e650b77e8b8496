//! A job that is being detached, and its stream.

use std::collections::VecDeque;
use std::net::SocketAddr;

use farpool_net::Outgoing;
use farpool_programs::Digest;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage};
use prost::Message;
use tokio::sync::mpsc;

use super::super::super::link::StreamId;

/// A job that is not complete, or not known to be.
#[derive(Default)]
pub(super) struct Receiving {
    /// `None`: its client may open another stream.
    pub(super) stream: Option<Stream>,
    /// Since when there is no stream.
    pub(super) since: u64,
    /// Its number in messages, and the limit of an item's size.
    pub(super) named: u64,
    pub(super) payload_limit: u64,
    pub(super) program: Option<Digest>,
    /// The program, while it is not here.
    pub(super) wants: Option<Digest>,
    /// How many items its stream was told are durable; `None`: it was told nothing yet.
    pub(super) told: Option<u64>,
    /// Messages that the store has no room for yet.
    pub(super) parked: VecDeque<ClientMessage>,
    /// Bytes of an incomplete message.
    pub(super) partial: u64,
    /// Its turn is over and it waits for the next.
    pub(super) waits: bool,
    /// The input has ended; and that is in the store.
    pub(super) input_ended: bool,
    pub(super) completes: bool,
}

/// The stream on which a job arrives.
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

    /// Returns whether its client waits for the disk. `items` is how many have arrived.
    pub(super) fn waits_for_disk(&self, items: Option<u64>) -> bool {
        self.stream.is_some() && (self.told != items || self.input_ended || !self.parked.is_empty())
    }

    /// Returns since when no client continues to detach it, if none does.
    pub(super) fn away_since(&self) -> Option<u64> {
        (self.stream.is_none() && !self.completes).then_some(self.since)
    }
}
