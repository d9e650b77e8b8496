//! A client's session, as the loop knows it.

use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Output, OutputStream};
use prost::Message;

use super::super::meter::Reading;
use super::session::Session;

/// The purpose of a client's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// It runs jobs in a pool of the coordinator.
    #[default]
    Pool,
    /// It detaches a job.
    Detaches,
    /// It reads the outcomes of a detached job.
    Reads,
}

pub(super) struct Client {
    pub(super) session: Session<ClientEvent>,
    pub(super) role: Role,
    /// Its first message was handled. A second such message is refused.
    pub(super) begun: bool,
    /// Size of the message that opened its pool, which is kept, in bytes.
    pub(super) opening: u64,
    /// Bytes of a message that has not arrived completely.
    pub(super) partial: u64,
    /// How many bytes it is counted with; see [`Clients`](super::clients::Clients).
    pub(super) counted: u64,
    /// The part of these that it does not read: its queue if that is too long, and what it should have acknowledged.
    pub(super) results: u64,
    /// Its pool is paused, because its queue is too long.
    paused: bool,
    /// Bytes of workers' output that were dropped meanwhile.
    dropped_output: u64,
    /// How much of it is read; less than all while the memory is full.
    reading: Reading,
    /// Its turn is over and it waits for the next.
    waits: bool,
    acknowledged: u64,
    pub(super) acks: ClientAcks,
    /// The bytes that waited for it when it last took some results, while agents wait for it.
    pub(super) waited: Option<Waited>,
    /// Its pool was open before, in another session.
    pub(super) again: bool,
    /// The bytes that it held when it was favoured, or fewer if it has held fewer since; see
    /// [`Memory`](super::memory::Memory).
    pub(super) favoured_from: Option<u64>,
    /// When it was last favoured and sent nothing; `None` once it has sent something in a later turn.
    pub(super) silent_at: Option<u64>,
    /// Its pool is closed or was never opened, and every message was queued. The session stays until the client ends
    /// it, which shows that all messages arrived.
    pub(super) finished: bool,
    // The messages of this round. Kept for its capacity.
    fresh: Vec<ClientEvent>,
}

/// The state of a client's acknowledgements; see [`acks`](super::acks).
#[derive(Clone, Copy, Default)]
pub(super) struct ClientAcks {
    /// Bytes that it has sent since its last acknowledgement, while it was overdue.
    pub(super) sent: u64,
    /// When it last had a turn since that acknowledgement.
    pub(super) turn_at: Option<u64>,
}

/// The bytes that a client had not read at some time; see [`slow_readers`](super::slow_readers).
#[derive(Clone, Copy)]
pub(super) struct Waited {
    /// In its queue, and in total.
    bytes: [u64; 2],
    since: u64,
}

/// The most bytes that one frame counts for: a message that arrived in many frames may have brought many acknowledgements.
pub(super) const MOST_IN_A_FRAME: u64 = 2 << 20;

/// How many bytes a client must read while it may be silent, or half of what waits for it if that is less.
const LEAST_TAKEN: u64 = 1 << 20;

impl Client {
    /// `opening` is the size of the message that opened its pool, and `again` says whether the pool was open before.
    pub(super) fn new(session: Session<ClientEvent>, role: Role, opening: u64, again: bool) -> Self {
        Self {
            session,
            role,
            begun: false,
            opening,
            partial: 0,
            counted: 0,
            results: 0,
            paused: false,
            dropped_output: 0,
            reading: Reading::All,
            waits: false,
            acknowledged: 0,
            acks: ClientAcks::default(),
            waited: None,
            again,
            favoured_from: None,
            silent_at: None,
            finished: false,
            fresh: Vec::new(),
        }
    }

    /// Returns how many bytes are held for it, not counting what the coordinator stores and what counts for detached jobs.
    pub(super) fn held(&self) -> u64 {
        let elsewhere = if self.is_served() { unread(&self.session.outgoing) } else { 0 };
        self.sent_by_client() + self.sent_and_waiting().saturating_sub(elsewhere)
    }

    /// Returns whether it is still sent the outcomes of a detached job. What waits for it then counts for the detached
    /// jobs.
    pub(super) fn is_served(&self) -> bool {
        self.role == Role::Reads && !self.finished
    }

    /// Returns the part of the held bytes that the client has sent.
    pub(super) fn sent_by_client(&self) -> u64 {
        self.opening + self.partial
    }

    /// Returns the part of the held bytes that waits to be sent or is not acknowledged.
    fn sent_and_waiting(&self) -> u64 {
        self.session.outgoing.bytes() as u64
    }

    /// Returns how many messages it has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Notes its acknowledgement. Returns how many messages it has acknowledged, if the number grew.
    pub(super) fn note_acknowledged(&mut self) -> Option<u64> {
        let acknowledged = self.session.outgoing.acknowledged();
        if acknowledged <= self.acknowledged {
            return None;
        }
        (self.acknowledged, self.acks) = (acknowledged, ClientAcks::default());
        Some(acknowledged)
    }

    /// Returns how many bytes wait to be sent.
    pub(super) fn waiting(&self) -> u64 {
        self.session.outgoing.waiting() as u64
    }

    /// Returns how many bytes were sent and are not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        self.session.outgoing.bytes().saturating_sub(self.session.outgoing.waiting()) as u64
    }

    pub(super) fn send(&self, body: Body) {
        self.session.outgoing.push(ClientEvent { body: Some(body) });
    }

    /// Keeps an event until the end of the round. Returns whether it is the first one.
    pub(super) fn gather(&mut self, event: ClientEvent) -> bool {
        if self.drops(&event) {
            return false;
        }
        self.fresh.push(event);
        self.fresh.len() == 1
    }

    /// Queues the events of the round. Returns whether the last one ends the session.
    pub(super) fn send_gathered(&mut self) -> bool {
        let over = self.fresh.last().is_some_and(|event| matches!(event.body, Some(Body::PoolClosed(_))));
        self.session.outgoing.extend(self.fresh.drain(..));
        over
    }

    /// Returns whether its pool is paused because its queue is too long.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Notes that its queue is short again, and tells the client how much output was dropped meanwhile.
    pub(super) fn unpause(&mut self) {
        self.paused = false;
        let bytes = std::mem::take(&mut self.dropped_output);
        if bytes > 0 {
            let text =
                format!("farpool: {bytes} bytes of the workers' output were not read in time and were dropped\n");
            let (host, stream) = ("coordinator".to_owned(), OutputStream::Stderr.into());
            self.send(Body::Output(Output { host, pid: 0, stream, data: text.into() }));
        }
    }

    /// Ends its turn. `partial` is how many bytes have arrived of an incomplete message.
    pub(super) fn end_turn(&mut self, partial: u64) {
        (self.partial, self.waits) = (partial, true);
        self.give_turn();
    }

    /// Sets how much of it is read from now on, and gives it a turn unless that is nothing.
    pub(super) fn read(&mut self, reading: Reading) {
        self.reading = reading;
        self.session.read(reading);
        self.give_turn();
    }

    /// Begins to read its new connection.
    pub(super) fn begin_to_read(&mut self) {
        self.session.read(self.reading);
        self.end_turn(0);
    }

    /// Returns whether its window holds back something that waits for it.
    pub(super) fn is_overdue(&self, window: u64) -> bool {
        self.waiting() > 0 && self.unacknowledged() >= window
    }

    /// Counts what an overdue client has sent. `more` is how much more it holds now, which for jobs is a multiple of what it sent.
    pub(super) fn count_sent(&mut self, bytes: u64, more: u64) {
        self.acks.sent += bytes.max(more.min(2 * MOST_IN_A_FRAME));
    }

    /// Returns whether results wait for it and it has read next to none of them for longer than `patience`, while agents wait. A client
    /// whose connection is lost gets the time for reconnecting.
    pub(super) fn is_slow(&mut self, now: u64, patience: u64) -> bool {
        let bytes = [self.waiting(), self.sent_and_waiting()];
        let before = self.waited.get_or_insert(Waited { bytes, since: now });
        let takes = before
            .bytes
            .iter()
            .zip(bytes)
            .any(|(&before, now)| before.saturating_sub(now) >= LEAST_TAKEN.min(before / 2).max(1));
        if takes || self.results == 0 || self.session.is_disconnected() {
            self.waited = Some(Waited { bytes, since: now });
        }
        self.waited.is_some_and(|waited| now.saturating_sub(waited.since) > patience)
    }

    /// Lets its next frame be read, unless it must not be read.
    fn give_turn(&mut self) {
        if self.waits && self.reading != Reading::Nothing {
            self.waits = false;
            self.session.give_turn();
        }
    }

    /// Returns whether to drop this event: only workers' output may be dropped, and only while the client does not read.
    fn drops(&mut self, event: &ClientEvent) -> bool {
        let Some(Body::Output(output)) = &event.body else { return false };
        if self.paused {
            self.dropped_output += output.data.len() as u64;
        }
        self.paused
    }
}

/// Returns how many bytes these messages count for.
pub(super) fn cost_of(messages: &[ClientMessage]) -> u64 {
    // The answers to small messages take more memory than the messages themselves.
    let takes = |message: &ClientMessage| (message.encoded_len() + size_of::<ClientMessage>()) as u64;
    messages.iter().map(takes).sum::<u64>().min(MOST_IN_A_FRAME)
}

/// How many bytes may be in flight to a client that reads a detached job before they count as unread. A session's window
/// may be larger, and its size changes with the number of sessions.
const IN_FLIGHT: u64 = 1 << 20;

/// Returns how many bytes a client that reads a detached job has not read: those that wait to be sent, and those beyond
/// what may be in flight.
pub(super) fn unread(outgoing: &Outgoing<ClientEvent>) -> u64 {
    let (held, waiting) = (outgoing.bytes() as u64, outgoing.waiting() as u64);
    waiting + held.saturating_sub(waiting).saturating_sub(IN_FLIGHT)
}
