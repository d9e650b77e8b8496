//! Chooses the clients that are read for their acknowledgements while the memory is full.
//!
//! Each client has a window; see [`clients`](super::clients). Its acknowledgements arrive only if it is read. While the
//! memory is full, a client is *overdue* if its window is full and messages wait behind it, or if a place waits for its
//! acknowledgement. An overdue client is read until it has sent more than can have been in flight before the
//! acknowledgement.
//!
//! Many overdue clients together must not send much: the further the bound is exceeded, the fewer are read at once. The
//! others take turns. So do clients that have sent too much without an acknowledgement: they may only be slow, so each
//! is read a bit further in its turn. A client whose program takes no outcomes acknowledges none.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use farpool_coordinator::ClientId;

use super::client::MOST_IN_A_FRAME;
use super::clients::Clients;
use super::round::Round;

/// How many bytes an overdue client may send before its acknowledgement must have arrived: those in flight, and some room.
const MAX_SENT_WHILE_OVERDUE: RangeInclusive<u64> = 3 << 20..=16 << 20;
const SENT_WHILE_OVERDUE_PART: u64 = 32;
/// How many overdue clients are read at once if the bound is exceeded by one to two reserves. Beyond that, only the
/// client whose turn it is.
const AT_ONCE: usize = 4;
/// The number of turns in the time for which a client may be silent, and how many bytes may be sent in one.
const TURNS: u64 = 8;
const TURN_BYTES: u64 = MOST_IN_A_FRAME;

/// Decides which overdue clients are read.
pub(super) struct Acks {
    max_sent_while_overdue: u64,
    /// How long a turn lasts, in ns.
    time: u64,
    turn: Option<ReadingTurn>,
}

/// A client's turn: it is read for some time, or until it has sent [`TURN_BYTES`]. The next turn begins only when that time is over.
struct ReadingTurn {
    client: Option<ClientId>,
    /// How many messages it had acknowledged when its turn began, and how many bytes it had sent since then.
    acknowledged: u64,
    sent: u64,
    since: u64,
}

impl Acks {
    /// `patience`: how long a client may be overdue, in ns.
    pub(super) fn new(memory: u64, patience: u64) -> Self {
        let max_sent_while_overdue =
            (memory / SENT_WHILE_OVERDUE_PART).clamp(*MAX_SENT_WHILE_OVERDUE.start(), *MAX_SENT_WHILE_OVERDUE.end());
        Self { max_sent_while_overdue, time: patience / TURNS, turn: None }
    }

    /// Returns which of these clients are read because they are overdue. `beyond`: by how many reserves the bound is exceeded.
    pub(super) fn choose(
        &mut self,
        round: &Round,
        clients: &mut Clients,
        candidates: &[ClientId],
        beyond: u64,
    ) -> BTreeSet<ClientId> {
        let is_overdue = |&id: &ClientId| clients.is_overdue_or_awaited(round, id);
        let overdue: Vec<ClientId> = candidates.iter().copied().filter(is_overdue).collect();
        let at_once = match beyond {
            0 => usize::MAX,
            1 => AT_ONCE,
            _ => 0,
        };
        let may_send_more =
            |&id: &ClientId| clients.get(id).is_some_and(|client| client.acks.sent <= self.max_sent_while_overdue);
        let mut chosen: BTreeSet<ClientId> = overdue.iter().copied().filter(may_send_more).take(at_once).collect();
        let others: Vec<ClientId> = overdue.into_iter().filter(|id| !chosen.contains(id)).collect();
        self.give_turn_to_one_of(clients, &others, round.now);
        chosen.extend(self.turn.as_ref().and_then(|turn| turn.client));
        chosen
    }

    /// Gives one of these clients a turn, unless another one has it or has just had it.
    fn give_turn_to_one_of(&mut self, clients: &mut Clients, others: &[ClientId], now: u64) {
        if let Some(turn) = self.turn.as_mut().filter(|turn| now.saturating_sub(turn.since) < self.time) {
            let Some(id) = turn.client else { return };
            let client = clients.get(id).filter(|client| client.acknowledged() == turn.acknowledged);
            if let Some(client) = client.filter(|_| others.contains(&id)) {
                if client.acks.sent.saturating_sub(turn.sent) > TURN_BYTES {
                    turn.client = None;
                }
                return;
            }
            // It has acknowledged something or is gone: it is the next one's turn.
        }
        self.turn = None;
        let longest_ago = |&id: &ClientId| clients.get(id).map(|client| (client.acks.turn_at, id));
        let Some((_, id)) = others.iter().filter_map(longest_ago).min() else { return };
        if let Some(client) = clients.get_mut(id) {
            client.acks.turn_at = Some(now);
            let (acknowledged, sent) = (client.acknowledged(), client.acks.sent);
            self.turn = Some(ReadingTurn { client: Some(id), acknowledged, sent, since: now });
        }
    }
}
