//! Detached jobs: the store that keeps them, and for each that has not ended the client of its pool, which is played here.
//!
//! A job comes in on a stream (`begin`, `receive`), is in the store when it is complete, and runs then in a pool of its own. For the
//! coordinator that pool's client is one like any other; here it is a [`Run`], which reads items from disk as far as there
//! is room for them (`feed`), and writes down what it hears (`run`). Agents keep their reports until it is durable
//! (`durable`). Whoever attaches is sent what is on disk (`attach`). After a restart a job goes on as that of a client
//! does that has lost its coordinator: its pool is opened again.
//!
//! The store is never waited for: it writes by itself, and tasks await what is read. While nothing can be written no
//! further jobs are taken (`refuse`).

mod ask;
mod attach;
mod begin;
mod durable;
mod feed;
mod open;
mod program;
mod receive;
mod refuse;
mod run;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;

use farpool_coordinator::ClientId;
use farpool_programs::InUse;
use farpool_proto::v1::{ClientEvent, FileAside, JournalStatus};
use farpool_store::{Aside, Description, JobStore, Wakeup};
use prost::Message;

use super::super::link::StreamId;
use super::super::programs::Programs;
use super::Driver;
use attach::Attached;
use begin::DetachJoins;
use durable::Then;
pub(in super::super) use open::Opened;
use receive::Receiving;
use refuse::Failing;
use run::Run;

/// When to try again what the disk did not do, in ns.
const AGAIN_NS: u64 = 1_000_000_000;

/// All that has to do with detached jobs. They are called by the store's numbers.
pub(super) struct Detached {
    /// None: the coordinator keeps none.
    store: Option<Box<dyn JobStore>>,
    programs: Option<Programs>,
    /// When the server's clock was at 0, in ms since 1970.
    started_ms: u64,
    /// Programs of jobs that have not ended: they are not removed.
    pins: BTreeMap<u64, InUse>,
    /// Jobs that are not complete.
    receiving: BTreeMap<u64, Receiving>,
    /// Which job comes on which stream.
    streams: BTreeMap<StreamId, u64>,
    next_stream: u64,
    /// Streams that wait until it is known whether there is room for their jobs.
    parked: VecDeque<DetachJoins>,
    /// Complete jobs of which it is being read what they were opened with.
    starting: BTreeSet<u64>,
    /// Jobs that run, by the client of the pool, and the client of each.
    runs: BTreeMap<ClientId, Run>,
    clients: BTreeMap<u64, ClientId>,
    attached: BTreeMap<StreamId, Attached>,
    /// What those hold together, in bytes, as of this round.
    attached_held: u64,
    /// When it was looked at them last.
    attached_seen_at: u64,
    /// Jobs of which it is in the store that they have ended, but not durable.
    ending: BTreeSet<u64>,
    /// What the clients of the pools were told and have not heard.
    mail: Vec<(ClientId, ClientEvent)>,
    /// Runs that may be fed.
    hungry: Vec<ClientId>,
    /// Those of them that had no room, and when to look at them again.
    starved: Vec<ClientId>,
    look_at: Option<u64>,
    /// Bytes of items of all runs that are in the memory.
    together: u64,
    /// Runs that were told something in this round.
    told: Vec<ClientId>,
    /// What follows when all that was written so far is durable, and when the records up to a number are.
    then: Vec<Then>,
    waiting: VecDeque<(u64, Then)>,
    /// No run gets anything to do, since outcomes have no room.
    paused: bool,
    failing: Option<Failing>,
    /// When to try again what the disk did not do.
    again_at: Option<u64>,
    memory_was_full: bool,
}

impl Detached {
    pub(super) fn new(opened: Option<Opened>) -> Self {
        let (store, programs, pins, started_ms) = match opened {
            Some(Opened { store, programs, pins, now_ms }) => (Some(store), Some(programs), pins, now_ms),
            None => (None, None, BTreeMap::new(), 0),
        };
        Self {
            store,
            programs,
            started_ms,
            pins,
            receiving: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            parked: VecDeque::new(),
            starting: BTreeSet::new(),
            runs: BTreeMap::new(),
            clients: BTreeMap::new(),
            attached: BTreeMap::new(),
            attached_held: 0,
            attached_seen_at: 0,
            ending: BTreeSet::new(),
            mail: Vec::new(),
            hungry: Vec::new(),
            starved: Vec::new(),
            look_at: None,
            together: 0,
            told: Vec::new(),
            then: Vec::new(),
            waiting: VecDeque::new(),
            paused: false,
            failing: None,
            again_at: None,
            memory_was_full: false,
        }
    }

    /// Comes back when something has become of what the store was told; never, if there is none.
    pub(super) async fn written(wakeup: Option<&Wakeup>) {
        match wakeup {
            Some(wakeup) => wakeup.wait().await,
            None => pending().await,
        }
    }

    pub(super) fn wakeup(&self) -> Option<Wakeup> {
        self.store.as_ref().map(|store| store.wakeup())
    }

    /// Whether there is something to do in another round, whatever comes.
    pub(super) fn has_more(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Whether this is the client of a detached job's pool.
    pub(super) fn plays(&self, client: ClientId) -> bool {
        self.runs.contains_key(&client)
    }

    pub(super) fn played(&self) -> impl Iterator<Item = ClientId> {
        self.runs.keys().copied()
    }

    /// Takes what a pool tells its client.
    pub(super) fn post(&mut self, client: ClientId, event: ClientEvent) {
        if self.plays(client) {
            self.mail.push((client, event));
        }
    }

    /// Bytes that are held: parts of messages, what waits for the disk, and what waits for who has attached.
    pub(super) fn held(&self) -> u64 {
        let receiving: u64 = self.receiving.values().map(Receiving::held).sum();
        let attached: u64 = self.attached.values().map(Attached::held).sum();
        let runs: u64 = self.runs.values().map(Run::held).sum();
        let parked = self.parked.iter().flat_map(|joins| &joins.messages);
        let parked: u64 = parked.map(|message| message.encoded_len() as u64).sum();
        parked + receiving + attached + runs + self.store.as_ref().map_or(0, |store| store.backlog())
    }

    pub(super) fn status(&self) -> Option<JournalStatus> {
        let store = self.store.as_ref()?;
        let Description { bytes, size, aside, damage } = store.describe();
        Some(JournalStatus {
            bytes,
            size,
            jobs: store.jobs().count() as u64,
            failing: self.failing.as_ref().map(|failing| failing.why.to_string()).unwrap_or_default(),
            aside: aside.into_iter().map(|Aside { name, bytes }| FileAside { name, bytes }).collect(),
            damage,
        })
    }

    /// Lets the store write what it has, if it can.
    pub(super) fn close(&mut self) {
        self.store = None;
    }

    fn stream_id(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId(self.next_stream)
    }
}

impl Driver {
    /// The time, in ms since 1970.
    fn now_ms(&self) -> u64 {
        self.detached.started_ms + self.now / 1_000_000
    }

    /// When to go round at the latest.
    pub(super) fn next_detached(&self) -> Option<u64> {
        let store = self.detached.store.as_ref()?;
        let expiry = store.next_expiry().filter(|_| self.detached.failing.is_none());
        let expiry = expiry.map(|at| at.saturating_sub(self.detached.started_ms).saturating_mul(1_000_000));
        let patience = super::super::clock::nanos(self.link.limits.detach);
        let away = self.detached.receiving.values().filter_map(Receiving::away_since).min();
        let away = away.map(|since| since.saturating_add(patience));
        let looks = [self.next_try(), self.detached.again_at, self.detached.look_at, self.next_look_at_attached()];
        [expiry, away].into_iter().chain(looks).flatten().min()
    }

    /// What is to be done in each round before the coordinator schedules.
    pub(super) fn tend_detached(&mut self, was_written: bool) {
        if self.detached.store.is_none() {
            return;
        }
        if was_written {
            self.take_progress();
        }
        self.expire_jobs();
        self.forget_unfinished();
        self.try_for_who_waits();
        if self.detached.again_at.is_some_and(|at| at <= self.now) {
            self.detached.again_at = None;
            self.detached.hungry.extend(self.detached.runs.keys());
            self.serve_all();
            self.start_all();
        }
        if std::mem::replace(&mut self.detached.memory_was_full, self.memory.is_full()) && !self.memory.is_full() {
            self.detached.hungry.extend(self.detached.runs.keys());
        }
        self.give_turns();
        self.tend_attached();
        self.pause_for_the_disk();
        if self.detached.look_at.is_some_and(|at| at <= self.now) {
            self.detached.look_at = None;
            self.detached.hungry.append(&mut self.detached.starved);
        }
        if self.detached.hungry.is_empty() {
            return;
        }
        self.count_together();
        let mut hungry = std::mem::take(&mut self.detached.hungry);
        hungry.sort_unstable();
        hungry.dedup();
        hungry.into_iter().for_each(|id| self.feed(id));
    }
}
