//! The bound on the bytes that are held: jobs and their items, results that clients have not read yet, and incomplete messages.
//!
//! Above the bound, the clients that hold most are no longer read: so many that the others together hold at most a tenth of the memory,
//! less the excess over the bound. The choice follows what clients hold, so those that send little, or whose results are read, make
//! progress. Small frames of clients that hold next to nothing are always read. Nothing is dropped. Below nine tenths, all are read
//! again. Meanwhile HTTP/2's flow control holds back what clients send.
//!
//! [`slow_readers`](super::slow_readers) bounds the results for clients that do not read. [`clients`](super::clients)
//! bounds what is sent and not acknowledged, and [`acks`](super::acks) chooses the clients that are read for their
//! acknowledgements. What agents do not read counts as well; see [`agents`](super::agents).
//!
//! What is held may be useless until more arrives: parts of large messages, incomplete explicit chunks, jobs without items, shared
//! values that are not dropped, reopened pools whose clients have not resent everything. If so, and slots are idle, one client at a time is favoured ([`Memory::favoured`]):
//! it is read until its part is complete, provided an agent could run it. All favoured clients together may gain only so much. Beyond
//! that, the client that has gained most loses its session. A client that detaches a job needs no agent: its complete message goes to
//! disk.

use std::cmp::Reverse;
use std::time::Duration;

use farpool_common::log::warn;
use farpool_common::units::ByteSize;
use farpool_coordinator::ClientId;
use tonic::Status;

use super::super::clock::nanos;
use super::super::heap::Heap;
use super::super::meter::Reading;
use super::acks::Acks;
use super::agents::Agents;
use super::client::{Client, Role};
use super::clients::Clients;
use super::detached::Detached;
use super::round::{MemoryState, Round};

/// How often to check queues while clients are stopped, in ns: queues become shorter without an event.
pub(super) const CHECK_NS: u64 = 20_000_000;
/// How long the memory in use must not have fallen before a client is favoured, in ns.
const STUCK_NS: u64 = 500_000_000;
/// How long a favoured client may send nothing before its turn ends, in ns: it may be waiting for outcomes or for a person. What it has
/// sent is kept, and it gets another turn.
const SILENT_NS: u64 = 1_000_000_000;
/// Fewer bytes than this in that time count as nothing.
const LEAST_SENT: u64 = 64 << 10;
/// The part of the bound that results for clients may take before agents are stopped, once more than the bound is held.
const RESULTS_PART: u64 = 8;
/// The part of the bound above which the allocator keeps little freed memory.
const MUCH_PART: u64 = 2;
/// Small frames of clients that hold no more than this are always read.
const SMALL_CLIENT: u64 = 64 << 10;
/// The largest first message of a session that is accepted while the memory is full, in bytes.
const SMALL_OPENING: u64 = 16 << 10;
/// The shortest time between two log lines about full memory, in ns.
const LOG_NS: u64 = 60_000_000_000;

pub(super) struct Memory {
    bound: u64,
    /// Clients are stopped.
    full: bool,
    /// The least that was held since the memory filled, and when that was.
    least: u64,
    stuck_since: u64,
    /// The client that is read because nothing else can make room.
    favoured: Option<ClientId>,
    /// The bytes that the favoured client held when it last sent something, and when that was.
    last_sent: (u64, u64),
    /// When it was last logged that the memory is full.
    logged_at: Option<u64>,
    /// How long a client may stay silent when it has something to acknowledge, in ns.
    patience: u64,
    acks: Acks,
    heap: Heap,
}

/// Everything that holds bytes.
pub(super) struct Holders<'a> {
    pub(super) clients: &'a mut Clients,
    pub(super) agents: &'a mut Agents,
    pub(super) detached: &'a Detached,
}

impl Holders<'_> {
    /// Returns an upper bound of the bytes that count.
    fn at_most(&self, round: &Round) -> u64 {
        let agents = self.agents.unread() + self.agents.partial() + self.agents.openings();
        round.bytes_of_jobs() + self.clients.counted() + agents + self.detached.held()
    }

    /// Returns how many bytes count for a client: its session, its jobs, and what waits for the store.
    fn held_by(&self, round: &Round, id: ClientId) -> u64 {
        self.clients.held_by(round, id) + self.detached.parked_of(id)
    }

    /// Returns whether it detaches a job.
    fn detaches(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|client| client.role == Role::Detaches)
    }

    /// Returns how many bytes count, exactly.
    fn held(&mut self, round: &Round) -> u64 {
        self.clients.count_all();
        self.agents.count_all();
        self.at_most(round)
    }
}

impl Memory {
    pub(super) fn new(bound: u64, patience: Duration) -> Self {
        let patience = nanos(patience);
        Self {
            bound,
            full: false,
            least: 0,
            stuck_since: 0,
            favoured: None,
            last_sent: (0, 0),
            logged_at: None,
            patience,
            acks: Acks::new(bound, patience),
            heap: Heap::default(),
        }
    }

    /// Returns its state, for other components.
    pub(super) fn room(&self) -> MemoryState {
        MemoryState { is_full: self.full, bound: self.bound, patience: self.patience }
    }

    pub(super) fn next_check(&self, now: u64) -> Option<u64> {
        self.full.then_some(now + CHECK_NS)
    }

    /// Returns whether more than the bound is held, and a good part of it is results that clients do not take.
    pub(super) fn is_full_of_results(&self, round: &Round, holders: &mut Holders<'_>) -> bool {
        let (results, most) = (self.bound / RESULTS_PART, self.bound);
        let is_exceeded = |holders: &Holders<'_>| holders.clients.results() > results && holders.at_most(round) > most;
        is_exceeded(holders) && {
            holders.held(round);
            is_exceeded(holders)
        }
    }

    /// Checks that a session may begin with a message of this size, which is kept as long as the session. `again`: there was room for it
    /// before.
    pub(super) fn admit(&self, round: &Round, holders: &Holders<'_>, bytes: u64, again: bool) -> Result<(), Status> {
        let openings = holders.clients.openings() + holders.agents.openings();
        let left = (self.bound / 2).saturating_sub(openings);
        // Messages that agents have not read become fewer by themselves, and an agent that does not read must not keep
        // clients out.
        let held = holders.at_most(round) - holders.agents.unread();
        let has_room = again || bytes <= SMALL_OPENING || held + bytes <= self.bound;
        if bytes <= left && has_room {
            return Ok(());
        }
        let [bytes, openings, bound] = [bytes, openings, self.bound].map(ByteSize);
        Err(Status::resource_exhausted(format!(
            "the coordinator's memory is full: this session needs {bytes} to open, the open ones took {openings}, and --memory is \
             {bound}; try again when others have ended, or raise --memory"
        )))
    }

    /// Stops clients, or reads them again. Returns a client whose session has to end because there is too little memory for it.
    pub(super) fn update(&mut self, round: &Round, holders: &mut Holders<'_>) -> Option<(ClientId, Status)> {
        let at_most = holders.at_most(round);
        self.heap.adjust(at_most > self.bound / MUCH_PART, round.now);
        if !self.full && at_most <= self.bound {
            return None;
        }
        let held = holders.held(round);
        if held > self.bound && !self.full {
            self.full = true;
            self.note_progress(held, round.now);
            if self.logged_at.is_none_or(|logged_at| round.now - logged_at > LOG_NS) {
                self.logged_at = Some(round.now);
                warn!(
                    round.link.log,
                    "the memory is full: clients that hold much of it are paused until there is room"
                );
            }
        }
        if self.full && held < self.low() {
            self.full = false;
            self.note_progress(0, round.now);
            for (_, client) in holders.clients.iter_mut() {
                (client.favoured_from, client.silent_at) = (None, None);
                client.read(Reading::All);
            }
            return None;
        }
        if !self.full {
            return None;
        }
        let ends = self.favour_if_stuck(round, holders, held);
        self.choose_readers(round, holders, held);
        ends
    }

    /// Returns the bytes below which all clients are read again.
    fn low(&self) -> u64 {
        self.bound / 10 * 9
    }

    /// Returns how many bytes the clients that are still read may hold together.
    fn reserve(&self) -> u64 {
        self.bound / 10
    }

    /// Notes that less is held than before, so nothing is stuck.
    fn note_progress(&mut self, held: u64, now: u64) {
        (self.least, self.stuck_since, self.favoured) = (held, now, None);
    }

    /// Favours a client if nothing else frees memory. Returns a client whose session has to end, if favoured clients gain too much.
    fn favour_if_stuck(&mut self, round: &Round, holders: &mut Holders<'_>, held: u64) -> Option<(ClientId, Status)> {
        if held < self.least {
            self.note_progress(held, round.now);
        }
        self.update_gains(round, holders);
        match self.favoured.filter(|&id| needs_more(round, holders, id)) {
            Some(favoured) => {
                if let Some(id) = self.largest_gain_beyond_limit(round, holders, favoured) {
                    self.note_progress(held, round.now);
                    let bound = ByteSize(self.bound);
                    let message = format!(
                        "the coordinator's memory is too small for this client's open jobs and shared values: --memory is {bound}; \
                         raise it, or use fewer or smaller items and values at once"
                    );
                    return Some((id, Status::resource_exhausted(message)));
                }
                if self.is_silent(round, holders, favoured) {
                    self.favoured = None;
                }
            }
            None => {
                self.favoured = self.choose_favoured(round, holders);
                if let Some(id) = self.favoured {
                    let holds = holders.held_by(round, id);
                    self.last_sent = (holds, round.now);
                    holders.clients.get_mut(id).map(|client| client.favoured_from.get_or_insert(holds));
                }
            }
        }
        None
    }

    /// Returns the client to favour, if any could make room.
    fn choose_favoured(&self, round: &Round, holders: &Holders<'_>) -> Option<ClientId> {
        let Holders { clients, agents, .. } = holders;
        // A large result is arriving.
        if agents.is_crowded() {
            return None;
        }
        let is_stuck = round.now - self.stuck_since >= STUCK_NS && round.coordinator.idles();
        // The part of the last favoured client may be complete and about to run.
        let may_run = is_stuck && !clients.ids().any(|id| round.coordinator.waits_for_agents(id));
        let needy = clients.ids().filter(|&id| (may_run || holders.detaches(id)) && needs_more(round, holders, id));
        let silent_at = |id| clients.get(id).and_then(|client| client.silent_at);
        // Clients that only have shared values come last: they may keep them.
        let waits = |id| waits_for_input(round, holders, id);
        needy.max_by_key(|&id| (waits(id), Reverse(silent_at(id)), holders.held_by(round, id), id))
    }

    /// Returns whether the favoured client has sent nothing for too long.
    fn is_silent(&mut self, round: &Round, holders: &mut Holders<'_>, favoured: ClientId) -> bool {
        let holds = holders.held_by(round, favoured);
        let Some(client) = holders.clients.get_mut(favoured) else { return true };
        if holds >= self.last_sent.0 + LEAST_SENT {
            self.last_sent = (holds, round.now);
            client.silent_at = None;
        }
        // Results that it reads reduce what it holds. Later ones must not count as sent.
        self.last_sent.0 = self.last_sent.0.min(holds);
        let is_silent = round.now - self.last_sent.1 >= SILENT_NS;
        if is_silent {
            client.silent_at = Some(round.now);
        }
        is_silent
    }

    /// Forgets the gains of clients that hold less than when they were favoured.
    fn update_gains(&self, round: &Round, holders: &mut Holders<'_>) {
        let from = holders.clients.iter().filter_map(|(id, client)| Some((id, client.favoured_from?)));
        let now = from.map(|(id, from)| (id, from, holders.held_by(round, id)));
        let shrank: Vec<_> = now.filter(|(_, from, now)| now < from).collect();
        for (id, _, now) in shrank {
            let less = (self.favoured == Some(id)).then_some(now);
            holders.clients.get_mut(id).map(|client| std::mem::replace(&mut client.favoured_from, less));
        }
    }

    /// Returns the client that has gained most by being favoured, if all clients of its kind together have gained too much. A client whose
    /// part is complete may keep it as long as it likes; then the next one is favoured.
    fn largest_gain_beyond_limit(&self, round: &Round, holders: &Holders<'_>, favoured: ClientId) -> Option<ClientId> {
        let gains_much = holders.clients.get(favoured).map(may_gain_much)?;
        let alike = holders.clients.iter().filter(|(_, client)| may_gain_much(client) == gains_much);
        let grown = alike
            .filter_map(|(id, client)| Some((holders.held_by(round, id).saturating_sub(client.favoured_from?), id)));
        let (most, together) =
            grown.fold(((0, favoured), 0), |(most, together), one| (most.max(one), together + one.0));
        let most_together = if gains_much { self.bound.saturating_mul(2) } else { self.bound / 2 };
        (together > most_together).then_some(most.1)
    }

    /// Reads the clients that hold least, as long as together they hold no more than the reserve. The excess over the bound is taken from
    /// the reserve: otherwise each of many clients would be read until it holds as much. While agents have much to read, no client is
    /// read: jobs that end at once count for no client, but each of them is sent to agents.
    fn choose_readers(&mut self, round: &Round, holders: &mut Holders<'_>, held: u64) {
        let beyond = held.saturating_sub(self.bound);
        let agents_lag = holders.agents.unread() > self.reserve();
        let reserve = self.reserve().saturating_sub(beyond);
        let mut all: Vec<(u64, ClientId)> = holders.clients.ids().map(|id| (holders.held_by(round, id), id)).collect();
        all.sort_unstable();
        let clients = &mut *holders.clients;
        let (mut together, mut others) = (0, Vec::new());
        for (held, id) in all {
            together += held;
            let fits = together <= reserve && reserve > 0 && !agents_lag;
            if fits || self.favoured == Some(id) {
                clients.read(id, Reading::All);
            } else {
                others.push((held, id));
            }
        }
        let ids: Vec<ClientId> = others.iter().map(|&(_, id)| id).collect();
        let beyond = beyond / self.reserve().max(1);
        let overdue = self.acks.choose(round, clients, &ids, beyond);
        for (held, id) in others {
            let is_small = held <= SMALL_CLIENT && !agents_lag;
            let small = if is_small { Reading::Small } else { Reading::Nothing };
            clients.read(id, if overdue.contains(&id) { Reading::All } else { small });
        }
    }
}

/// Returns whether the client may gain much when it is favoured. If it reopens its pool, what it resends was in the memory of the previous
/// coordinator, or in flight to it. If it detaches a job, what it sends does not stay in memory.
fn may_gain_much(client: &Client) -> bool {
    client.again || client.role == Role::Detaches
}

/// Returns whether what the client has sent is useless before more arrives, or is kept until the client says otherwise.
fn needs_more(round: &Round, holders: &Holders<'_>, id: ClientId) -> bool {
    let shares = !holders.detaches(id) && round.coordinator.has_place(id) && round.coordinator.shares_values(id);
    shares || waits_for_input(round, holders, id)
}

/// Returns whether what the client has sent is useless before more arrives.
fn waits_for_input(round: &Round, holders: &Holders<'_>, id: ClientId) -> bool {
    let coordinator = &round.coordinator;
    let waits = || coordinator.lacks_chunk(id) || coordinator.lacks_items(id) || coordinator.has_pending_places(id);
    let is_partial = || holders.clients.get(id).is_some_and(|client| client.partial > 0);
    if holders.detaches(id) {
        // While messages wait for the disk, more of them make no room.
        return is_partial() && !holders.detached.has_parked();
    }
    coordinator.has_place(id) && (is_partial() || waits())
}
