//! Acknowledgements of clients.
//!
//! What was sent to a client is held until the client acknowledges it. So each client has a window: while more than that is not
//! acknowledged, no further message is begun for it, and what waits counts as its queue. What the window lets through does not
//! count against the memory's bound.
//!
//! Acknowledgements only come with what is read of a client. So while the memory is full, a client for which something waits behind
//! a full window is overdue, as is one for whose acknowledgement a place waits, and is read until it has said more than can have been
//! sent before its acknowledgement. What many overdue clients say meanwhile must not come to much: the more is held beyond
//! the bound, the fewer are read at once. The others take turns, and so do those that have said that much: each is read a bit further,
//! since it may only be slow. A client whose program takes no outcomes acknowledges none.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use farpool_coordinator::ClientId;
use farpool_proto::v1::ClientMessage;
use prost::Message;

use super::Driver;
use super::clients::Client;

/// A client's window in bytes, which does not count. All clients together may have such a part of the memory, as far as that is
/// not too little for each.
const WINDOW: RangeInclusive<u64> = 1 << 20..=10 << 20;
const WINDOWS_PART: u64 = 4;
/// What an overdue client may say before its acknowledgement must have come, in bytes: what is in flight from it, and room.
const ENOUGH: RangeInclusive<u64> = 3 << 20..=16 << 20;
const ENOUGH_PART: u64 = 32;
/// What one frame counts for at most: a message that came in many may have come with many acknowledgements.
const MOST_IN_A_FRAME: u64 = 2 << 20;
/// So many overdue clients are read at once while more than the reserve is held beyond the bound.
const AT_ONCE: usize = 4;
/// Turns in the time for which a client may be silent, and what may be said in one: what was sent before its acknowledgement.
const TURNS: u64 = 8;
const TURN_BYTES: u64 = MOST_IN_A_FRAME;

/// What clients may leave unacknowledged, and whose turn it is.
pub(super) struct Acks {
    memory: u64,
    /// That of each client.
    window: u64,
    enough: u64,
    /// How long a client may be overdue, in ns.
    patience: u64,
    turn: Option<Turn>,
}

/// A client is read for some time, or until it has said [`TURN_BYTES`]; then nobody is until that time is over.
struct Turn {
    client: Option<ClientId>,
    /// What it had acknowledged, and said since, when its turn began.
    acknowledged: u64,
    said: u64,
    since: u64,
}

/// What is known of a client's acknowledgements.
#[derive(Default)]
pub(super) struct ClientAcks {
    /// Bytes that it has said since its last one, while it was overdue.
    said: u64,
    /// When it last had its turn since then.
    turn_at: Option<u64>,
}

impl Acks {
    pub(super) fn new(memory: u64, patience: u64) -> Self {
        let enough = within(memory / ENOUGH_PART, ENOUGH);
        Self { memory, window: *WINDOW.end(), enough, patience, turn: None }
    }

    /// The window of each client in bytes, which does not count.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// Whether what the client says is to come to little, since it is overdue. `waits`: a place waits for its acknowledgement.
    pub(super) fn listens(&self, client: &mut Client, waits: bool) -> bool {
        let listens = waits || self.is_overdue(client);
        if !listens {
            client.acks.said = 0;
        }
        listens
    }

    /// Whether something waits for it that its window holds back.
    fn is_overdue(&self, client: &Client) -> bool {
        client.waiting() > 0 && client.unacknowledged() >= self.window
    }

    fn has_said_enough(&self, client: &Client) -> bool {
        client.acks.said > self.enough
    }

    fn time_of_a_turn(&self) -> u64 {
        self.patience / TURNS
    }
}

/// What a client says with these, in bytes.
pub(super) fn says(messages: &[ClientMessage]) -> u64 {
    // Small messages have answers that take more in memory than they do.
    let takes = |message: &ClientMessage| (message.encoded_len() + size_of::<ClientMessage>()) as u64;
    messages.iter().map(takes).sum::<u64>().min(MOST_IN_A_FRAME)
}

impl Client {
    /// Counts what an overdue client has said. `more`: it holds so much more now, which is a multiple of what it said where that were
    /// jobs.
    pub(super) fn has_said(&mut self, bytes: u64, more: u64) {
        self.acks.said += bytes.max(more.min(2 * MOST_IN_A_FRAME));
    }
}

fn within(bytes: u64, range: RangeInclusive<u64>) -> u64 {
    bytes.clamp(*range.start(), *range.end())
}

impl Driver {
    /// Gives clients larger or smaller windows when some have come or gone.
    pub(super) fn share_windows(&mut self) {
        let acks = &mut self.memory.acks;
        let window = within(acks.memory / WINDOWS_PART / self.clients.len().max(1) as u64, WINDOW);
        if std::mem::replace(&mut acks.window, window) != window {
            self.clients.values().for_each(|client| client.session.outgoing.set_window(window as usize));
        }
    }

    /// Which of these clients are read since they are overdue. `beyond`: what is held beyond the bound, in reserves.
    pub(super) fn choose_overdue(&mut self, clients: &[ClientId], beyond: u64) -> BTreeSet<ClientId> {
        let overdue: Vec<ClientId> = clients.iter().copied().filter(|&id| self.is_overdue_or_awaited(id)).collect();
        let at_once = match beyond {
            0 => usize::MAX,
            1 => AT_ONCE,
            _ => 0,
        };
        let acks = &self.memory.acks;
        let may_say_more = |id: &ClientId| self.clients.get(id).is_some_and(|client| !acks.has_said_enough(client));
        let mut chosen: BTreeSet<ClientId> = overdue.iter().copied().filter(may_say_more).take(at_once).collect();
        let others: Vec<ClientId> = overdue.into_iter().filter(|id| !chosen.contains(id)).collect();
        self.give_turn_to_one_of(&others);
        chosen.extend(self.memory.acks.turn.as_ref().and_then(|turn| turn.client));
        chosen
    }

    /// Whether it is overdue, or is to say that it knows where its pool starts.
    fn is_overdue_or_awaited(&self, id: ClientId) -> bool {
        let is_overdue = |client: &Client| self.memory.acks.is_overdue(client);
        self.coordinator.is_to_hear(id) || self.clients.get(&id).is_some_and(is_overdue)
    }

    /// Gives one of these its turn, unless another one has it, or has just had it.
    fn give_turn_to_one_of(&mut self, clients: &[ClientId]) {
        let (now, acks) = (self.now, &mut self.memory.acks);
        let time = acks.time_of_a_turn();
        if let Some(turn) = acks.turn.as_mut().filter(|turn| now.saturating_sub(turn.since) < time) {
            let Some(id) = turn.client else { return };
            let client = self.clients.get(&id).filter(|client| client.acknowledged() == turn.acknowledged);
            if let Some(client) = client.filter(|_| clients.contains(&id)) {
                if client.acks.said.saturating_sub(turn.said) > TURN_BYTES {
                    turn.client = None;
                }
                return;
            }
            // It has acknowledged something, or has gone: it is the next one's turn.
        }
        acks.turn = None;
        let longest_ago = |&id: &ClientId| self.clients.get(&id).map(|client| (client.acks.turn_at, id));
        let Some((_, id)) = clients.iter().filter_map(longest_ago).min() else { return };
        if let Some(client) = self.clients.get_mut(&id) {
            client.acks.turn_at = Some(now);
            let (acknowledged, said) = (client.acknowledged(), client.acks.said);
            acks.turn = Some(Turn { client: Some(id), acknowledged, said, since: now });
        }
    }
}
