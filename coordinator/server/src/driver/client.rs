//! A client's session, as the loop sees it.

use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Output, OutputStream};
use prost::Message;

use super::super::meter::Reading;
use super::session::Session;

pub(super) struct Client {
    pub(super) session: Session<ClientEvent>,
    /// Bytes of the message that opened its pool, which is kept.
    pub(super) opening: u64,
    /// Bytes of a message that is not whole yet.
    pub(super) partial: u64,
    /// What it is counted with; see [`Clients`](super::clients::Clients).
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

/// What is known of a client's acknowledgements; see [`acks`](super::acks).
#[derive(Clone, Copy, Default)]
pub(super) struct ClientAcks {
    /// Bytes that it has said since its last one, while it was overdue.
    pub(super) said: u64,
    /// When it last had its turn since then.
    pub(super) turn_at: Option<u64>,
}

/// What a client had not taken at some time; see [`slow_readers`](super::slow_readers).
#[derive(Clone, Copy)]
pub(super) struct Waited {
    /// In its queue, and in all.
    bytes: [u64; 2],
    since: u64,
}

/// What one frame counts for at most: a message that came in many may have come with many acknowledgements.
pub(super) const MOST_IN_A_FRAME: u64 = 2 << 20;

/// What a client must take at least in the time for which it may be silent, if as much again waits for it.
const LEAST_TAKEN: u64 = 1 << 20;

impl Client {
    /// `opening`: what the message takes that has opened its pool. `again`: that was open before.
    pub(super) fn new(session: Session<ClientEvent>, opening: u64, again: bool) -> Self {
        Self {
            session,
            opening,
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
            again,
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
    fn sent_and_waiting(&self) -> u64 {
        self.session.outgoing.bytes() as u64
    }

    /// Its messages that were taken in, as it said last.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Notes which messages it has, as it says; returns how many if they are more than before.
    pub(super) fn note_acknowledged(&mut self) -> Option<u64> {
        let acknowledged = self.session.outgoing.acknowledged();
        if acknowledged <= self.acknowledged {
            return None;
        }
        (self.acknowledged, self.acks) = (acknowledged, ClientAcks::default());
        Some(acknowledged)
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

    /// Keeps an event for the end of the round; says whether it is the first one.
    pub(super) fn gather(&mut self, event: ClientEvent) -> bool {
        if self.leaves_out(&event) {
            return false;
        }
        self.fresh.push(event);
        self.fresh.len() == 1
    }

    /// Puts what was gathered into its queue; says whether that was the last of all.
    pub(super) fn send_gathered(&mut self) -> bool {
        let over = self.fresh.last().is_some_and(|event| matches!(event.body, Some(Body::PoolClosed(_))));
        self.session.outgoing.extend(self.fresh.drain(..));
        over
    }

    /// Whether its queue is too long, so that its pool is paused.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Its queue is short again: says how much output was left out meanwhile, if any was.
    pub(super) fn unpause(&mut self) {
        self.paused = false;
        let bytes = std::mem::take(&mut self.output_left_out);
        if bytes > 0 {
            let text =
                format!("farpool: {bytes} bytes of the workers' output were not read in time and were dropped\n");
            let (host, stream) = ("coordinator".to_owned(), OutputStream::Stderr.into());
            self.tell(Body::Output(Output { host, pid: 0, stream, data: text.into() }));
        }
    }

    /// Its turn is over. `partial`: so many bytes are here of a message that is not whole.
    pub(super) fn end_turn(&mut self, partial: u64) {
        (self.partial, self.waits) = (partial, true);
        self.give_turn();
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
        self.end_turn(0);
    }

    /// Whether something waits for it that its window holds back.
    pub(super) fn is_overdue(&self, window: u64) -> bool {
        self.waiting() > 0 && self.unacknowledged() >= window
    }

    /// Counts what an overdue client has said. `more`: it holds so much more now, which is a multiple of what it said where that were
    /// jobs.
    pub(super) fn has_said(&mut self, bytes: u64, more: u64) {
        self.acks.said += bytes.max(more.min(2 * MOST_IN_A_FRAME));
    }

    /// Whether it has results of which it has taken next to nothing for so long, while agents wait for it. A client whose
    /// connection is lost has the time that there is for that.
    pub(super) fn is_slow(&mut self, now: u64, patience: u64) -> bool {
        let bytes = [self.waiting(), self.sent_and_waiting()];
        let before = self.waited.get_or_insert(Waited { bytes, since: now });
        let takes = before
            .bytes
            .iter()
            .zip(bytes)
            .any(|(&before, now)| before.saturating_sub(now) >= LEAST_TAKEN.min(before / 2).max(1));
        if takes || self.results == 0 || self.session.is_away() {
            self.waited = Some(Waited { bytes, since: now });
        }
        self.waited.is_some_and(|waited| now.saturating_sub(waited.since) > patience)
    }

    /// Has its next frame read, unless nothing is.
    fn give_turn(&mut self) {
        if self.waits && self.reading != Reading::Nothing {
            self.waits = false;
            self.session.give_turn();
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
}

/// What a client says with these, in bytes.
pub(super) fn says(messages: &[ClientMessage]) -> u64 {
    // Small messages have answers that take more in memory than they do.
    let takes = |message: &ClientMessage| (message.encoded_len() + size_of::<ClientMessage>()) as u64;
    messages.iter().map(takes).sum::<u64>().min(MOST_IN_A_FRAME)
}
