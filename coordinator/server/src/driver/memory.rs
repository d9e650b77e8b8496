//! The bound on the bytes that are held: jobs and their items, results that clients have not read yet, and messages that are not
//! whole.
//!
//! When there are more than that, the clients that hold most are not read any more: so many of them that the others together hold
//! a tenth of the memory at most, less what is held beyond the bound. Who that is changes with what they hold, so that those go
//! on who send little or whose results are read. Of clients that hold next to nothing small frames are read in any case.
//! Nothing is dropped. Below nine tenths all are read again.
//! What a client has on its way meanwhile is held back by HTTP/2's flow control.
//!
//! Results for clients that do not read are bounded in [`slow_readers`](super::slow_readers); what is sent and
//! not acknowledged, in [`acks`](super::acks). What agents do not take counts as well; see [`unread`](super::unread).
//!
//! What is held may be of no use before more comes: parts of large messages, items of explicit chunks that are not
//! whole, jobs without items, pools that were open before and of which not all has been said again. If it is so, and slots idle
//! for it, one client at a time may go on until its part is whole ([`Memory::favoured`]), if there is an agent that could run it.
//! What clients come to hold in this way has a bound for all of them together: beyond it, the one that has come to hold most
//! loses its session.

use std::cmp::Reverse;
use std::time::Duration;

use farpool_common::log::warn;
use farpool_common::units::ByteSize;
use farpool_coordinator::ClientId;
use tonic::Status;

use super::super::heap::Heap;
use super::super::meter::Reading;
use super::Driver;
use super::acks::Acks;
use super::agents::Agent;
use super::clients::Client;

/// While clients are stopped their queues drain without a word, so they are looked at in this interval, in ns.
const LOOK_NS: u64 = 20_000_000;
/// For so long nothing must have become less before somebody is favoured, in ns.
const STUCK_NS: u64 = 500_000_000;
/// When a favoured client has sent nothing for so long, in ns, its turn ends: it may be waiting for outcomes, or for somebody at a
/// keyboard. What it has sent stays, and it gets another turn.
const SILENT_NS: u64 = 1_000_000_000;
/// Less than so many bytes in that time are nothing.
const LEAST_SENT: u64 = 64 << 10;
/// Beyond the bound results for clients may take such a part of it before agents are not read any more.
const RESULTS_PART: u64 = 8;
/// When more than such a part of the bound is held, the allocator keeps little freed memory.
const MUCH_PART: u64 = 2;
/// Who holds no more than this goes on with small frames, whatever others hold.
const SMALL_CLIENT: u64 = 64 << 10;
/// A session may begin with so many bytes while the memory is full.
const SMALL_OPENING: u64 = 16 << 10;
/// How often to say at most that the memory is full, in ns.
const SAY_NS: u64 = 60_000_000_000;

pub(super) struct Memory {
    bound: u64,
    /// What all clients are counted with: never less than what they hold, since queues become shorter by themselves.
    counted: u64,
    /// The part of it that clients do not take: results, nearly all. See [`slow_readers`](super::slow_readers).
    results: u64,
    /// What agents are counted with that is to be sent to them: never less than it is.
    pub(super) unread: u64,
    /// The part of what clients, and agents beside, are counted with that sessions have begun with.
    openings: u64,
    /// Clients are stopped.
    full: bool,
    /// Agents are too, once they have sent a little; see [`slow_readers`](super::slow_readers).
    pub(super) holds_agents_up: bool,
    /// The least that was held since it has been full, and since when nothing has become less.
    least: u64,
    stuck_since: u64,
    /// Who may go on, since nothing else would make room.
    favoured: Option<ClientId>,
    /// What the favoured client held when it last sent something, and when that was.
    heard: (u64, u64),
    /// When it was last said that it is full.
    said_at: Option<u64>,
    /// How long a client may be silent while it should say something, in ns.
    patience: u64,
    pub(super) acks: Acks,
    heap: Heap,
}

impl Memory {
    pub(super) fn new(bound: u64, patience: Duration) -> Self {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        Self {
            bound,
            counted: 0,
            results: 0,
            unread: 0,
            openings: 0,
            full: false,
            holds_agents_up: false,
            least: 0,
            stuck_since: 0,
            favoured: None,
            heard: (0, 0),
            said_at: None,
            patience,
            acks: Acks::new(bound, patience),
            heap: Heap::default(),
        }
    }

    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// How long a client may be silent while it should say something, in ns.
    pub(super) fn patience(&self) -> u64 {
        self.patience
    }

    /// Whether clients are stopped.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn next_look(&self, now: u64) -> Option<u64> {
        (self.full || self.holds_agents_up).then_some(now + LOOK_NS)
    }

    /// To be called when the client may hold more than before.
    pub(super) fn count(&mut self, client: &mut Client) {
        self.forget(client);
        let beyond = client.unacknowledged().saturating_sub(self.acks.window());
        let waiting = client.waiting();
        client.counted = client.said() + beyond + waiting;
        client.results = beyond + if client.is_paused() { waiting } else { 0 };
        self.counted += client.counted;
        self.results += client.results;
    }

    pub(super) fn forget(&mut self, client: &mut Client) {
        self.counted -= client.counted;
        self.results -= client.results;
        (client.counted, client.results) = (0, 0);
    }

    /// A session has begun with a message of so many bytes, which is kept.
    pub(super) fn opened(&mut self, bytes: u64) {
        self.openings += bytes;
    }

    /// It has ended.
    pub(super) fn closed(&mut self, bytes: u64) {
        self.openings -= bytes;
    }

    /// Below this all clients are read again.
    fn low(&self) -> u64 {
        self.bound / 10 * 9
    }

    /// What those may hold together that are read on.
    fn reserve(&self) -> u64 {
        self.bound / 10
    }

    /// Begins to count anew whether it is stuck.
    fn moves(&mut self, held: u64, now: u64) {
        (self.least, self.stuck_since, self.favoured) = (held, now, None);
    }
}

impl Driver {
    /// Bytes that are held, with those that are on their way. What agents have said of themselves is not: it stays as long as they do.
    pub(super) fn all_held(&self) -> u64 {
        let clients: u64 = self.clients.values().map(Client::held).sum();
        let agents: u64 = self.agents.values().map(Agent::unread).sum();
        self.jobs_held() + clients + agents + self.detached.held() + self.partials.bytes()
    }

    /// Whether more than the bound is held, and results that clients do not take are a good part of it.
    pub(super) fn is_full_of_results(&mut self) -> bool {
        let (results, most) = (self.memory.bound / RESULTS_PART, self.memory.bound);
        let is_so = |driver: &Self| driver.memory.results > results && driver.at_most_held() > most;
        is_so(self) && {
            self.held();
            is_so(self)
        }
    }

    /// Bytes that are held and count.
    fn held(&mut self) -> u64 {
        self.clients.values_mut().for_each(|client| self.memory.count(client));
        self.agents.values_mut().for_each(|agent| self.memory.count_unread(agent));
        self.at_most_held()
    }

    fn at_most_held(&self) -> u64 {
        self.jobs_held() + self.memory.counted + self.memory.unread + self.detached.held() + self.partly_held()
    }

    fn jobs_held(&self) -> u64 {
        self.coordinator.stored_bytes() + self.coordinator.job_bytes()
    }

    /// Bytes of agents' messages that are not whole, and of what they have said of themselves.
    fn partly_held(&self) -> u64 {
        self.partials.bytes() + self.agents.values().map(|agent| agent.opening).sum::<u64>()
    }

    /// Whether a session may begin with a message of so many bytes, which is kept for as long as it lasts. `again`: there was room
    /// for it before.
    pub(super) fn admit_opening(&self, bytes: u64, again: bool) -> Result<(), Status> {
        let (bound, openings) = (self.memory.bound, self.memory.openings);
        let left = (bound / 2).saturating_sub(openings);
        // What agents have not read yet becomes less by itself, and one that does not read must not keep clients out.
        let held = self.at_most_held() - self.memory.unread;
        let has_room = again || bytes <= SMALL_OPENING || held + bytes <= bound;
        if bytes <= left && has_room {
            return Ok(());
        }
        let [bytes, openings, bound] = [bytes, openings, bound].map(ByteSize);
        Err(Status::resource_exhausted(format!(
            "the coordinator's memory is full: this session needs {bytes} to open, the open ones took {openings}, and --memory is \
             {bound}; try again when others have ended, or raise --memory"
        )))
    }

    pub(super) fn tend_memory(&mut self) {
        let is_much = self.at_most_held() > self.memory.bound / MUCH_PART;
        self.memory.heap.tend(is_much, self.now);
        if !self.memory.full && self.at_most_held() <= self.memory.bound {
            return;
        }
        let held = self.held();
        if held > self.memory.bound && !self.memory.full {
            self.memory.full = true;
            self.memory.moves(held, self.now);
            if self.memory.said_at.is_none_or(|said_at| self.now - said_at > SAY_NS) {
                self.memory.said_at = Some(self.now);
                warn!(self.link.log, "the memory is full: clients that hold much of it are paused until there is room");
            }
        }
        if self.memory.full && held < self.memory.low() {
            self.memory.full = false;
            self.memory.moves(0, self.now);
            for client in self.clients.values_mut() {
                (client.favoured_from, client.silent_at) = (None, None);
                client.read(Reading::All);
            }
        } else if self.memory.full {
            self.keep_moving(held);
            self.choose_readers(held);
        }
    }

    /// Favours a client if nothing moves otherwise, and sees to it that it does not go on for ever.
    fn keep_moving(&mut self, held: u64) {
        if held < self.memory.least {
            self.memory.moves(held, self.now);
        }
        self.look_at_who_shrank();
        match self.memory.favoured.filter(|&id| self.needs_more(id)) {
            Some(favoured) => {
                if let Some(id) = self.has_grown_too_much(favoured) {
                    let bound = ByteSize(self.memory.bound);
                    let message = format!(
                        "the coordinator's memory is too small for this client's open jobs: --memory is {bound}; raise it, or use fewer \
                         or smaller items at once"
                    );
                    self.end_client(id, Err(Status::resource_exhausted(message)));
                    self.memory.moves(held, self.now);
                } else if self.is_silent(favoured) {
                    self.memory.favoured = None;
                }
            }
            None if self.now - self.memory.stuck_since < STUCK_NS
                || !self.coordinator.idles()
                // A large result is coming in.
                || self.partials.is_crowded() =>
            {
                self.memory.favoured = None;
            }
            // That of the one before is whole and about to run.
            None if self.clients.keys().any(|&id| self.coordinator.is_about_to_go_on(id)) => {
                self.memory.favoured = None
            }
            None => {
                let needy = self.clients.keys().copied().filter(|&id| self.needs_more(id));
                let silent_at = |id| self.clients.get(&id).and_then(|client| client.silent_at);
                self.memory.favoured = needy.max_by_key(|&id| (Reverse(silent_at(id)), self.held_by(id), id));
                if let Some(id) = self.memory.favoured {
                    let holds = self.held_by(id);
                    self.memory.heard = (holds, self.now);
                    self.clients.get_mut(&id).map(|client| client.favoured_from.get_or_insert(holds));
                }
            }
        }
    }

    /// Whether the favoured client has sent nothing for too long.
    fn is_silent(&mut self, favoured: ClientId) -> bool {
        let holds = self.held_by(favoured);
        let Some(client) = self.clients.get_mut(&favoured) else { return true };
        if holds >= self.memory.heard.0 + LEAST_SENT {
            self.memory.heard = (holds, self.now);
            client.silent_at = None;
        }
        // What it takes of its results does not count as sent when others come.
        self.memory.heard.0 = self.memory.heard.0.min(holds);
        let is_silent = self.now - self.memory.heard.1 >= SILENT_NS;
        if is_silent {
            client.silent_at = Some(self.now);
        }
        is_silent
    }

    /// Who holds less than when it was favoured has used up nothing.
    fn look_at_who_shrank(&mut self) {
        let from = self.clients.iter().filter_map(|(&id, client)| Some((id, client.favoured_from?)));
        let now = from.map(|(id, from)| (id, from, self.held_by(id)));
        let shrank: Vec<_> = now.filter(|(_, from, now)| now < from).collect();
        for (id, _, now) in shrank {
            let less = (self.memory.favoured == Some(id)).then_some(now);
            self.clients.get_mut(&id).map(|client| std::mem::replace(&mut client.favoured_from, less));
        }
    }

    /// Who has come to hold most by being favoured, if those like this client together hold too much more for that: one that has its
    /// part whole may keep it for as long as it likes, and the next one is favoured.
    fn has_grown_too_much(&self, favoured: ClientId) -> Option<ClientId> {
        let again = self.clients.get(&favoured)?.again;
        let alike = self.clients.iter().filter(|(_, client)| client.again == again);
        let grown =
            alike.filter_map(|(&id, client)| Some((self.held_by(id).saturating_sub(client.favoured_from?), id)));
        let (most, together) =
            grown.fold(((0, favoured), 0), |(most, together), one| (most.max(one), together + one.0));
        (together > self.most_for(again)).then_some(most.1)
    }

    /// How much more favoured clients may come to hold so that each gets its part whole. What is said `again` of pools that were open
    /// before was in the memory of the coordinator before this one, or on its way there.
    fn most_for(&self, again: bool) -> u64 {
        if again { self.memory.bound.saturating_mul(2) } else { self.memory.bound / 2 }
    }

    /// Whether what the client has sent is of no use before more comes.
    fn needs_more(&self, id: ClientId) -> bool {
        let coordinator = &self.coordinator;
        let waits = || coordinator.lacks_chunk(id) || coordinator.lacks_items(id) || coordinator.is_to_hear(id);
        let is_partial = || self.clients.get(&id).is_some_and(|client| client.partial > 0);
        coordinator.has_place(id) && (is_partial() || waits())
    }

    fn held_by(&self, id: ClientId) -> u64 {
        self.clients.get(&id).map_or(0, |client| client.counted) + self.bytes_of(id)
    }

    /// What the coordinator keeps of a client's jobs and their items.
    pub(super) fn bytes_of(&self, id: ClientId) -> u64 {
        self.coordinator.stored_bytes_of(id) + self.coordinator.job_bytes_of(id)
    }

    /// Those that hold least go on, as far as they hold no more than the reserve together. What is held beyond the bound has used
    /// up some of it: otherwise each of many clients would go on until it holds as much. While agents have much to read, nobody goes on:
    /// jobs that end at once are nobody's, and all of them are told to agents.
    fn choose_readers(&mut self, held: u64) {
        let beyond = held.saturating_sub(self.memory.bound);
        let agents_lag = self.memory.unread > self.memory.reserve();
        let reserve = self.memory.reserve().saturating_sub(beyond);
        let mut clients: Vec<(u64, ClientId)> = self.clients.keys().map(|&id| (self.held_by(id), id)).collect();
        clients.sort_unstable();
        let (mut together, mut others) = (0, Vec::new());
        for (held, id) in clients {
            together += held;
            let goes_on = together <= reserve && reserve > 0 && !agents_lag;
            if goes_on || self.memory.favoured == Some(id) {
                self.read(id, Reading::All);
            } else {
                others.push((held, id));
            }
        }
        let ids: Vec<ClientId> = others.iter().map(|&(_, id)| id).collect();
        let overdue = self.choose_overdue(&ids, beyond / self.memory.reserve().max(1));
        for (held, id) in others {
            let is_small = held <= SMALL_CLIENT && !agents_lag;
            let small = if is_small { Reading::Small } else { Reading::Nothing };
            self.read(id, if overdue.contains(&id) { Reading::All } else { small });
        }
    }

    fn read(&mut self, id: ClientId, reading: Reading) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.read(reading);
        }
    }
}
