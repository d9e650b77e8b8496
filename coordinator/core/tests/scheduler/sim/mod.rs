//! Simulated time: slots of agents take the next item of the oldest chunk, and the clock jumps to the next end of an
//! item.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::num::NonZeroU64;

use farpool_core::{Action, AgentId, ChunkId, Config, Core, Event, Id, JobId, JobPolicy, Labels, PoolId};

pub(crate) struct Sim {
    pub(crate) core: Core,
    pub(crate) now: u64,
    /// Slot time that each job has had.
    pub(crate) served: BTreeMap<u32, u64>,
    /// The job and the number of items of each chunk that was handed out.
    pub(crate) chunks: Vec<(u32, u64)>,
    pub(crate) retractions: usize,
    pub(crate) finished: Vec<u32>,
    agents: Vec<Agent>,
    // How long item `i` of a job takes.
    times: Vec<Box<dyn Fn(u64) -> u64>>,
    running: BinaryHeap<Reverse<Running>>,
}

/// A running item; the one that ends first is least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Running {
    ends: u64,
    began: u64,
    agent: usize,
    chunk: ChunkId,
    attempt: u32,
    item: u64,
}

struct Agent {
    slots: u32,
    busy: u32,
    chunks: VecDeque<Chunk>,
}

struct Chunk {
    id: ChunkId,
    job: u32,
    next: u64,
    end: u64,
    attempt: u32,
}

pub(crate) fn pool(number: u32) -> PoolId {
    PoolId::new(number, 1)
}

impl Sim {
    /// Agents with their slots and credit, and pools with their weights.
    pub(crate) fn new(agents: &[(u32, u32)], weights: &[u32]) -> Self {
        let mut sim = Self {
            core: Core::new(Config::checked()),
            now: 0,
            served: BTreeMap::new(),
            chunks: Vec::new(),
            retractions: 0,
            finished: Vec::new(),
            agents: Vec::new(),
            times: Vec::new(),
            running: BinaryHeap::new(),
        };
        for (number, &weight) in weights.iter().enumerate() {
            let (pool, require) = (pool(number as u32), Labels::default());
            sim.send(Event::PoolOpened { pool, slots: None, weight, require, held: Vec::new() });
        }
        for &(slots, credit) in agents {
            let agent = AgentId::new(sim.agents.len() as u32, 1);
            sim.agents.push(Agent { slots, busy: 0, chunks: VecDeque::new() });
            sim.send(Event::AgentJoined { agent, slots, labels: Labels::default() });
            sim.send(Event::AgentCredit { agent, chunks: credit, bytes: 0 });
        }
        sim
    }

    /// A job of `count` items, all arrived. Chunk size 0: adaptive.
    pub(crate) fn map(&mut self, in_pool: u32, chunksize: u64, count: u64, time: impl Fn(u64) -> u64 + 'static) -> u32 {
        let number = self.times.len() as u32;
        let job = JobId::new(number, 1);
        self.times.push(Box::new(time));
        self.served.insert(number, 0);
        let policy = JobPolicy { chunksize: NonZeroU64::new(chunksize), ..JobPolicy::default() };
        self.send(Event::JobOpened { job, pool: pool(in_pool), policy, require: Labels::default() });
        self.send(Event::ItemsArrived { job, first: 0, count, bytes: 8 * count });
        self.send(Event::InputEnded { job });
        number
    }

    /// Runs until that time, or until everything has ended.
    pub(crate) fn run_until(&mut self, end: u64) {
        loop {
            let mut actions = Vec::new();
            self.core.schedule(self.now, &mut actions);
            actions.into_iter().for_each(|action| self.apply(action));
            let Some(&Reverse(next)) = self.running.peek() else { return };
            if next.ends > end {
                self.now = end;
                return;
            }
            self.running.pop();
            self.now = next.ends;
            self.end_item(next);
        }
    }

    fn send(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.handle(event, &mut actions);
        actions.into_iter().for_each(|action| self.apply(action));
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Assign { agent, chunk, job, first, count, attempt } => {
                self.chunks.push((job.index(), count));
                let chunk = Chunk { id: chunk, job: job.index(), next: first, end: first + count, attempt };
                let agent = agent.index() as usize;
                self.agents[agent].chunks.push_back(chunk);
                self.fill_slots(agent);
            }
            Action::Retract { agent, chunk } => {
                self.retractions += 1;
                let number = agent.index() as usize;
                let chunks = &mut self.agents[number].chunks;
                let at = chunks.iter().position(|held| held.id == chunk);
                // None: all of it has begun.
                let Some(held) = at.and_then(|at| chunks.remove(at)) else {
                    self.send(Event::Returned { agent, chunk, attempt: 1, first: 0, count: 0 });
                    return;
                };
                let count = held.end - held.next;
                self.send(Event::Returned { agent, chunk, attempt: held.attempt, first: held.next, count });
            }
            Action::StartPool { agent, pool, .. } => self.send(Event::PlaceStarted { pool, agent }),
            Action::JobFinished { job, .. } => self.finished.push(job.index()),
            _ => {}
        }
    }

    fn fill_slots(&mut self, number: usize) {
        let agent = &mut self.agents[number];
        while agent.busy < agent.slots
            && let Some(chunk) = agent.chunks.front_mut()
        {
            let time = (self.times[chunk.job as usize])(chunk.next);
            let (began, ends) = (self.now, self.now + time);
            let (attempt, item) = (chunk.attempt, chunk.next);
            self.running.push(Reverse(Running { ends, began, agent: number, chunk: chunk.id, attempt, item }));
            *self.served.get_mut(&chunk.job).expect("the job exists") += time;
            chunk.next += 1;
            agent.busy += 1;
            if chunk.next == chunk.end {
                agent.chunks.pop_front();
            }
        }
    }

    fn end_item(&mut self, ended: Running) {
        let Running { ends, began, chunk, attempt, item, .. } = ended;
        self.agents[ended.agent].busy -= 1;
        let agent = AgentId::new(ended.agent as u32, 1);
        self.send(Event::RunDone {
            agent,
            chunk,
            attempt,
            first: item,
            count: 1,
            busy_ns: ends - began,
            failed: false,
        });
        self.fill_slots(ended.agent);
    }
}
