//! Coordinators are killed, agents are lost and reconnect late or never, and clients are given up. Each item has one
//! outcome in the end, items that may run once do not run twice, and no report is kept for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use farpool_coordinator::Config;
use farpool_proto::v1::{
    AdoptPool, FailureKind, HeldChunk, HeldPool, OpenJob, PoolReopened, agent_command, client_event,
};
use farpool_testkit::doses;
use proptest::prelude::*;

use crate::fakes::*;

const POOL: u8 = 9;
const RECOVERY: u64 = 5_000_000_000;

/// How often items have run, or may have.
type Begun = BTreeMap<(u64, u64), u32>;

/// A chunk in an agent's ledger.
struct Chunk {
    /// The agent's own number for it.
    own: u64,
    /// The coordinator's view of it.
    held: Held,
    /// The client's number for its job.
    job: u64,
    open: Vec<bool>,
}

impl Chunk {
    fn first_open(&self) -> Option<u64> {
        self.open.iter().position(|open| *open).map(|at| self.held.first + at as u64)
    }

    /// Kills the chunk: its next item may have been running, and no others run.
    fn kill(&mut self, begun: &mut Begun) {
        if let Some(item) = self.first_open() {
            *begun.entry((self.job, item)).or_default() += 1;
        }
        self.open.fill(false);
    }
}

/// A report that may have to be resent.
struct Kept {
    own: u64,
    first: u64,
    count: u64,
    fault: bool,
    /// Its number in the session.
    number: u64,
}

/// An agent across all its sessions.
struct Node {
    id: u8,
    /// Its number on the wire; `None`: it has no session.
    session: Option<usize>,
    pool: Option<u64>,
    /// Whether the coordinator knows what it holds.
    adopted: bool,
    jobs: BTreeMap<u64, u64>,
    chunks: Vec<Chunk>,
    kept: VecDeque<Kept>,
    reports: u64,
    next_own: u64,
}

impl Node {
    fn new(id: u8) -> Self {
        Self {
            id,
            session: None,
            pool: None,
            adopted: false,
            jobs: BTreeMap::new(),
            chunks: Vec::new(),
            kept: VecDeque::new(),
            reports: 0,
            next_own: 1,
        }
    }

    fn connect(&mut self, wire: &mut Wire) {
        let held: Vec<HeldPool> = self.pool.map(|_| held_pool(1, POOL, self.held())).into_iter().collect();
        (self.reports, self.adopted) = (0, false);
        self.session = Some(wire.agent_as(self.id, 2, held));
    }

    fn held(&self) -> Vec<HeldChunk> {
        let chunks = self.chunks.iter().map(|chunk| {
            let open = (chunk.held.first..).zip(&chunk.open).filter(|(_, open)| **open).map(|(item, _)| (item, 1));
            let kept = self.kept.iter().filter(|kept| kept.own == chunk.own).map(|kept| (kept.first, kept.count));
            let mut runs: Vec<_> = open.chain(kept).collect();
            runs.sort_unstable();
            held_chunk(chunk.own, chunk.job, chunk.held.first, chunk.held.attempt, &runs)
        });
        chunks.filter(|chunk| !chunk.runs.is_empty()).collect()
    }

    /// Kills chunks and drops their reports.
    fn drop_chunks(&mut self, begun: &mut Begun, dropped: impl Fn(&Chunk) -> bool) {
        self.chunks.iter_mut().filter(|chunk| dropped(chunk)).for_each(|chunk| chunk.kill(begun));
        let gone: BTreeSet<u64> = self.chunks.iter().filter(|chunk| dropped(chunk)).map(|chunk| chunk.own).collect();
        self.chunks.retain(|chunk| !gone.contains(&chunk.own));
        self.kept.retain(|kept| !gone.contains(&kept.own));
    }

    fn report(&mut self, wire: &mut Wire, mut kept: Kept) {
        let Some(session) = self.session.filter(|_| self.adopted) else { return self.kept.push_back(kept) };
        let chunk = self.chunks.iter().find(|chunk| chunk.own == kept.own).expect("a report is of a chunk");
        let from = (kept.first - chunk.held.first) as usize;
        let report = match kept.fault {
            true => fault(&chunk.held, kept.first, FailureKind::WorkerDied),
            false => done(&chunk.held, from, kept.count as usize),
        };
        self.reports += 1;
        kept.number = self.reports;
        self.kept.push_back(kept);
        wire.report(session, report);
    }

    /// Runs one or more items, even without a session.
    fn work(&mut self, wire: &mut Wire, dice: &mut Dice, begun: &mut Begun, faults: bool) {
        let open: Vec<usize> = (0..self.chunks.len()).filter(|&at| self.chunks[at].open.contains(&true)).collect();
        if open.is_empty() {
            return;
        }
        let chunk = &mut self.chunks[open[dice.roll(open.len())]];
        let from = chunk.open.iter().position(|open| *open).expect("one is open");
        let most = chunk.open[from..].iter().take_while(|open| **open).count();
        let fault = faults && dice.roll(10) == 0;
        let count = if fault { 1 } else { 1 + dice.roll(most) };
        chunk.open[from..from + count].fill(false);
        let first = chunk.held.first + from as u64;
        for item in first..first + count as u64 {
            *begun.entry((chunk.job, item)).or_default() += 1;
        }
        let kept = Kept { own: chunk.own, first, count: count as u64, fault, number: 0 };
        self.report(wire, kept);
    }

    fn adopt(&mut self, wire: &mut Wire, adopt: &AdoptPool, begun: &mut Begun) {
        (self.pool, self.adopted) = (Some(adopt.pool), true);
        self.jobs = adopt.jobs.iter().map(|job| (job.job, job.number)).collect();
        self.drop_chunks(begun, |chunk| adopt.chunks.iter().all(|adopted| adopted.held != chunk.own));
        for adopted in &adopt.chunks {
            let chunk = self
                .chunks
                .iter_mut()
                .find(|chunk| chunk.own == adopted.held)
                .expect("the agent holds what is adopted");
            (chunk.held.chunk, chunk.held.attempt) = (adopted.chunk, adopted.attempt);
        }
        for kept in std::mem::take(&mut self.kept) {
            self.report(wire, kept);
        }
    }

    fn read_mail(&mut self, wire: &mut Wire, dice: &mut Dice, begun: &mut Begun) {
        use agent_command::Body::*;
        let Some(session) = self.session else { return };
        while let Some(command) = wire.to_agents[session].pop_front() {
            match command {
                StartPool(start) => {
                    assert!(self.chunks.is_empty(), "the pool was started again without being stopped");
                    (self.pool, self.adopted, self.jobs) = (Some(start.pool), true, BTreeMap::new());
                }
                AdoptPool(adopt) => self.adopt(wire, &adopt, begun),
                StopPool(stop) => {
                    self.drop_chunks(begun, |_| true);
                    self.pool = None;
                    wire.report(session, pool_stopped(stop.pool));
                }
                StartJob(start) => drop(self.jobs.insert(start.job, start.number)),
                EndJob(end) => {
                    let number = self.jobs.remove(&end.job).expect("the agent knows the job");
                    if end.kill {
                        self.drop_chunks(begun, |chunk| chunk.job == number);
                    }
                    let open = |chunk: &Chunk| chunk.job == number && chunk.first_open().is_some();
                    assert!(!self.chunks.iter().any(open), "a job has ended with something open");
                }
                Assign(assign) => {
                    for held in held(&assign) {
                        let (own, job) = (self.next_own, self.jobs[&held.job]);
                        self.next_own += 1;
                        self.chunks.push(Chunk { own, job, open: vec![true; held.items.len()], held });
                    }
                }
                Retract(retract) => retract.chunks.into_iter().for_each(|id| self.give_back(wire, dice, id)),
                Settled(settled) => {
                    assert!(settled.report <= self.reports, "a report was settled before it was made");
                    self.kept.retain(|kept| kept.number > settled.report);
                }
                CancelChunks(cancel) => {
                    self.chunks.iter_mut().for_each(|chunk| {
                        if cancel.chunks.contains(&chunk.held.chunk) {
                            chunk.kill(begun);
                        }
                    });
                }
                ResizePool(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let kept: BTreeSet<u64> = self.kept.iter().map(|kept| kept.own).collect();
        self.chunks.retain(|chunk| chunk.first_open().is_some() || kept.contains(&chunk.own));
    }

    fn give_back(&mut self, wire: &mut Wire, dice: &mut Dice, id: u64) {
        let Some(chunk) = self.chunks.iter_mut().find(|chunk| chunk.held.chunk == id) else { return };
        let tail = chunk.open.iter().rev().take_while(|open| **open).count();
        let count = dice.roll(tail + 1);
        let from = chunk.open.len() - count;
        chunk.open[from..].fill(false);
        let report = give_back(&chunk.held, from, count);
        wire.report(self.session.expect("the agent has a session"), report);
    }
}

/// What a client needs, and what it has.
struct Job {
    chunksize: u64,
    retries: u32,
    items: u64,
    /// How much the feeder has passed on, and how much of that has been sent.
    fed: u64,
    sent: u64,
    input_ended: bool,
    outcomes: BTreeMap<u64, bool>,
    ended: bool,
}

fn new_coordinator() -> Wire {
    let mut wire = Wire::with(Config::default());
    wire.acks_at_once = false;
    wire
}

fn text(job: u64, item: u64) -> String {
    format!("job{job}item{item}")
}

struct Client {
    number: usize,
    jobs: BTreeMap<u64, Job>,
    at: BTreeSet<u8>,
    /// Frames in flight. A frame arrives as a whole or not at all.
    frames: VecDeque<Vec<client_event::Body>>,
    /// Messages of the session: those taken from the outbox, and those received by the client.
    numbered: u64,
    received: u64,
}

impl Client {
    fn open(&mut self, wire: &mut Wire, again: bool) {
        self.number = wire.client();
        (self.numbered, self.received) = (0, 0);
        self.frames.clear();
        let at: Vec<u8> = self.at.iter().copied().collect();
        wire.send(self.number, open_pool_as(POOL, 0, again.then_some(&at[..])));
        for (&number, job) in self.jobs.iter().filter(|(_, job)| !job.ended) {
            let Job { chunksize, retries, .. } = *job;
            let open = OpenJob { job: number, chunksize, retries, ..OpenJob::default() };
            wire.send(self.number, Request::OpenJob(Box::new(open)));
            for item in (0..job.sent).filter(|item| !job.outcomes.contains_key(item)) {
                wire.send(self.number, items(number, item, &[text(number, item)]));
            }
            if job.input_ended && job.sent == job.fed {
                wire.send(self.number, end_items(number));
            }
        }
        if again {
            wire.send(self.number, Request::PoolReopened(PoolReopened {}));
            let late: Vec<u64> =
                self.jobs.iter().filter(|(_, job)| job.sent < job.fed).map(|(&number, _)| number).collect();
            late.into_iter().for_each(|number| self.send(wire, number));
        }
    }

    /// Sends what has been fed of a job.
    fn send(&mut self, wire: &mut Wire, number: u64) {
        let job = self.jobs.get_mut(&number).expect("the job exists");
        if job.sent < job.fed {
            let batch: Vec<_> = (job.sent..job.fed).map(|item| text(number, item)).collect();
            wire.send(self.number, items(number, job.sent, &batch));
            job.sent = job.fed;
        }
        if job.input_ended {
            wire.send(self.number, end_items(number));
        }
    }

    /// The coordinator that gave the client up has killed what ran. Of items that may not run twice, all that were sent
    /// may have run.
    fn give_up(&mut self) {
        for job in self.jobs.values_mut().filter(|job| !job.ended && job.retries == 0) {
            (0..job.sent).for_each(|item| {
                job.outcomes.entry(item).or_insert(false);
            });
        }
    }

    fn feed(&mut self, wire: &mut Wire, dice: &mut Dice) {
        let open: Vec<u64> = self.jobs.iter().filter(|(_, job)| !job.input_ended).map(|(&number, _)| number).collect();
        if open.is_empty() {
            return;
        }
        let number = open[dice.roll(open.len())];
        let job = self.jobs.get_mut(&number).expect("the job was just found");
        job.fed += (1 + dice.roll(4) as u64).min(job.items - job.fed);
        job.input_ended = job.fed == job.items && dice.roll(2) == 0;
        // The end may wait in the client's queue until the client has another session or coordinator.
        if job.input_ended || dice.roll(3) > 0 {
            self.send(wire, number);
        }
    }

    /// The messages of this round become a frame, and at most this many frames arrive.
    fn listen(&mut self, wire: &mut Wire, most: usize) {
        let frame: Vec<_> = wire.to_clients[self.number].drain(..).collect();
        self.numbered += frame.len() as u64;
        self.frames.push_back(frame);
        wire.coordinator.client_numbered(wire.clients[self.number], self.numbered);
        let mut comes = false;
        for event in self.frames.drain(..most.min(self.frames.len())).flatten() {
            self.received += 1;
            comes |= matches!(&event, client_event::Body::PoolAt(at) if !at.gone);
            match event {
                client_event::Body::ItemsDone(done) => {
                    let job = self.jobs.get_mut(&done.job).expect("the job is open");
                    for (item, result) in (done.first..).zip(payloads(&done.data, 0, &done.ends)) {
                        assert_eq!(result, text(done.job, item).to_uppercase());
                        assert_eq!(job.outcomes.insert(item, true), None, "delivered twice");
                    }
                }
                client_event::Body::ItemsFailed(failed) => {
                    let job = self.jobs.get_mut(&failed.job).expect("the job is open");
                    for item in failed.first..failed.first + failed.count {
                        assert_eq!(job.outcomes.insert(item, false), None, "failed twice");
                    }
                }
                client_event::Body::JobEnded(ended) => {
                    let job = self.jobs.get_mut(&ended.job).expect("the job is open");
                    assert!(!std::mem::replace(&mut job.ended, true) && !ended.cancelled);
                }
                client_event::Body::PoolAt(at) if at.gone => drop(self.at.remove(&at.agent[0])),
                client_event::Body::PoolAt(at) => drop(self.at.insert(at.agent[0])),
                client_event::Body::Welcome(_) | client_event::Body::Waiting(_) => {}
                client_event::Body::PoolOpened(_) | client_event::Body::Window(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if comes {
            self.acknowledge(wire, self.received);
        }
    }

    fn acknowledge(&self, wire: &mut Wire, last: u64) {
        wire.acknowledge(self.number, last);
    }

    fn all_ended(&self) -> bool {
        self.jobs.values().all(|job| job.ended)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(10_000)))]

    #[test]
    fn every_item_has_one_outcome(
        jobs in prop::collection::vec((0..3u64, 0..3u32, 0..25u64), 1..4),
        numbers in prop::collection::vec(any::<u32>(), 20..200),
    ) {
        let mut dice = Dice::new(numbers);
        let mut begun = Begun::new();
        let mut wire = new_coordinator();
        let jobs = (0..).zip(jobs).map(|(number, (chunksize, retries, items))| {
            let (fed, sent, input_ended, ended) = (0, 0, false, false);
            (number, Job { chunksize, retries, items, fed, sent, input_ended, outcomes: BTreeMap::new(), ended })
        });
        let mut client = Client { number: 0, jobs: jobs.collect(), at: BTreeSet::new(), frames: VecDeque::new(), numbered: 0, received: 0 };
        client.open(&mut wire, false);
        let (mut nodes, mut next_id) = (Vec::new(), 1);
        for round in 0.. {
            let faults = round < 60;
            while nodes.len() < 2 {
                nodes.push(Node::new(next_id));
                next_id += 1;
            }
            if faults && dice.roll(12) == 0 {
                // A new coordinator. All frames in flight are lost, and nobody has a session.
                wire = new_coordinator();
                nodes.iter_mut().for_each(|node| node.session = None);
                if dice.roll(2) == 0 {
                    nodes.iter_mut().filter(|_| dice.roll(2) == 0).for_each(|node| node.connect(&mut wire));
                }
                client.open(&mut wire, true);
            } else if faults && dice.roll(30) == 0 {
                // The client is given up, and opens its pool again.
                wire.client_gone(client.number);
                wire.to_clients[client.number].clear();
                client.give_up();
                client.open(&mut wire, true);
            }
            for at in (0..nodes.len()).rev() {
                let node = &mut nodes[at];
                match dice.roll(if faults { 40 } else { usize::MAX }) {
                    // It loses its session for a while.
                    0 => {
                        if let Some(session) = node.session.take() {
                            wire.agent_gone(session);
                        }
                    }
                    // It dies.
                    1 => {
                        node.drop_chunks(&mut begun, |_| true);
                        if let Some(session) = node.session {
                            wire.agent_gone(session);
                        }
                        nodes.remove(at);
                        continue;
                    }
                    // It begins a session while it has one.
                    2 if node.session.is_some() => {
                        let older = node.session.expect("the session was just seen");
                        node.connect(&mut wire);
                        wire.to_agents[older].clear();
                    }
                    _ if node.session.is_none() && dice.roll(3) == 0 => node.connect(&mut wire),
                    _ => {}
                }
            }
            client.feed(&mut wire, &mut dice);
            if dice.roll(10) == 0 {
                wire.wait(RECOVERY);
            }
            if dice.roll(3) > 0 {
                wire.schedule();
            }
            for node in &mut nodes {
                node.read_mail(&mut wire, &mut dice, &mut begun);
                node.work(&mut wire, &mut dice, &mut begun, faults);
            }
            let most = dice.roll(4);
            client.listen(&mut wire, most);
            if dice.roll(2) == 0 {
                client.acknowledge(&mut wire, client.received);
            }
            if client.all_ended() {
                break;
            }
            prop_assert!(round < 3000, "the jobs do not end");
        }
        for (number, job) in &client.jobs {
            prop_assert!(job.outcomes.keys().copied().eq(0..job.items), "{:?}", job.outcomes);
            for item in (0..job.items).filter(|_| job.retries == 0) {
                prop_assert!(begun.get(&(*number, item)).copied().unwrap_or(0) <= 1, "{item} of {number} ran twice");
            }
        }
        // When the client has acknowledged everything, no report is kept.
        nodes.iter_mut().filter(|node| node.session.is_none()).for_each(|node| node.connect(&mut wire));
        for _ in 0..3 {
            wire.wait(RECOVERY);
            wire.schedule();
            nodes.iter_mut().for_each(|node| node.read_mail(&mut wire, &mut dice, &mut begun));
            client.listen(&mut wire, usize::MAX);
            client.acknowledge(&mut wire, client.received);
        }
        wire.schedule();
        for node in &mut nodes {
            node.read_mail(&mut wire, &mut dice, &mut begun);
            prop_assert!(node.kept.is_empty() && node.chunks.is_empty(), "agent {} keeps something", node.id);
        }
        prop_assert_eq!(wire.coordinator.stored_bytes(), 0);
    }
}
