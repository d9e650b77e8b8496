//! A caller and its agents, faked: they keep their own books of every item and compare each action with them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;

use farpool_core::{Action, AgentId, Cause, ChunkId, Config, Core, Event, Fault, Id, JobId, JobPolicy, PoolId};

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) agents: BTreeMap<u32, FakeAgent>,
    pub(crate) jobs: BTreeMap<u32, FakeJob>,
    pub(crate) now: u64,
    /// What was done since the test last looked.
    pub(crate) log: Vec<Action>,
    pub(crate) stale_expected: u64,
    finished: HashSet<JobId>,
    chunks_seen: HashSet<ChunkId>,
    generations: HashMap<u32, u32>,
    next_job: u32,
    next_agent: u32,
}

pub(crate) struct FakeAgent {
    pub(crate) id: AgentId,
    pub(crate) credit: u32,
    pub(crate) slots: u32,
    /// Oldest first.
    pub(crate) chunks: Vec<FakeChunk>,
    knows: HashSet<JobId>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeChunk {
    pub(crate) id: ChunkId,
    pub(crate) job: u32,
    pub(crate) attempt: u32,
    pub(crate) first: u64,
    /// Items it is not through with, rising.
    pub(crate) left: Vec<u64>,
    pub(crate) asked_back: bool,
}

pub(crate) struct FakeJob {
    pub(crate) id: JobId,
    pub(crate) policy: JobPolicy,
    pub(crate) items: BTreeMap<u64, FakeItem>,
    pub(crate) next: u64,
    pub(crate) ended: bool,
    pub(crate) finished: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeItem {
    /// Tries that have ended badly.
    pub(crate) faults: u32,
    pub(crate) at_agent: bool,
    pub(crate) was_handed_out: bool,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed { attempts: u32, lost: bool },
}

pub(crate) const POOL: u32 = 0;

pub(crate) fn pool() -> PoolId {
    PoolId::new(POOL, 1)
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let mut world = Self {
            core: Core::new(config),
            agents: BTreeMap::new(),
            jobs: BTreeMap::new(),
            now: 0,
            log: Vec::new(),
            stale_expected: 0,
            finished: HashSet::new(),
            chunks_seen: HashSet::new(),
            generations: HashMap::new(),
            next_job: 0,
            next_agent: 0,
        };
        world.send(Event::PoolOpened { pool: pool(), slots: None, weight: 1 });
        world
    }

    pub(crate) fn send(&mut self, event: Event) -> Vec<Action> {
        self.now += 1000;
        let mut actions = Vec::new();
        self.core.handle(event, self.now, &mut actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Assign { .. } | Action::Retract { .. })));
        actions.iter().for_each(|action| self.apply(*action));
        actions
    }

    pub(crate) fn schedule(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.schedule(self.now, &mut actions);
        actions.iter().for_each(|action| self.apply(*action));
        let room = self.agents.values().any(|agent| agent.chunks.len() < agent.credit as usize);
        let waiting = self.jobs.values().any(FakeJob::must_be_handed_out);
        assert!(!(room && waiting), "an agent has credit and a job has items, and nothing happens");
        actions
    }

    pub(crate) fn join(&mut self, slots: u32, credit: u32) -> u32 {
        // Places are used again, as a caller's slab does.
        let place = (0..).find(|place| !self.agents.contains_key(place)).expect("there is always a place");
        let generation = self.generations.entry(place).or_insert(0);
        *generation += 1;
        let id = AgentId::new(place, *generation);
        self.agents.insert(place, FakeAgent { id, credit: 0, slots, chunks: Vec::new(), knows: HashSet::new() });
        self.send(Event::AgentJoined { agent: id, slots });
        self.credit(place, credit);
        place
    }

    pub(crate) fn credit(&mut self, agent: u32, chunks: u32) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.credit = chunks;
        let id = fake.id;
        self.send(Event::AgentCredit { agent: id, chunks });
    }

    pub(crate) fn lose(&mut self, agent: u32) {
        let gone = self.agents.remove(&agent).expect("the agent is there");
        // The books first: what was there is nowhere now, and the first item left of each chunk was running.
        let mut must_fail = Vec::new();
        for chunk in gone.chunks {
            let job = self.jobs.get_mut(&chunk.job).expect("the job is there");
            let at_most_once = job.policy.retries == 0;
            for (at, item) in chunk.left.iter().enumerate() {
                let state = job.items.get_mut(item).expect("the item has arrived");
                state.at_agent = false;
                if at_most_once || at == 0 {
                    state.faults += 1;
                }
                if state.faults > job.policy.retries {
                    must_fail.push((chunk.job, *item, state.faults));
                }
            }
        }
        self.send(Event::AgentLost { agent: gone.id });
        for (job, item, attempts) in must_fail {
            let outcome = self.jobs[&job].items[&item].outcome;
            assert_eq!(outcome, Some(Outcome::Failed { attempts, lost: true }), "item {item} of job {job}");
        }
    }

    /// Another pool.
    pub(crate) fn open_pool(&mut self, number: u32, slots: u32, weight: u32) -> PoolId {
        let pool = PoolId::new(number, 1);
        self.send(Event::PoolOpened { pool, slots: NonZeroU32::new(slots), weight });
        pool
    }

    pub(crate) fn open(&mut self, policy: JobPolicy) -> u32 {
        self.open_in(pool(), policy)
    }

    pub(crate) fn open_in(&mut self, pool: PoolId, policy: JobPolicy) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        let id = JobId::new(job, 1);
        self.jobs.insert(job, FakeJob { id, policy, items: BTreeMap::new(), next: 0, ended: false, finished: None });
        self.send(Event::JobOpened { job: id, pool, policy });
        job
    }

    /// `count` items behind a gap of `gap`.
    pub(crate) fn arrive(&mut self, job: u32, gap: u64, count: u64) {
        let fake = self.jobs.get_mut(&job).expect("the job is there");
        let first = fake.next + gap;
        fake.next = first + count;
        fake.items.extend((first..first + count).map(|item| (item, FakeItem::default())));
        let id = fake.id;
        self.send(Event::ItemsArrived { job: id, first, count });
    }

    pub(crate) fn end(&mut self, job: u32) {
        let fake = self.jobs.get_mut(&job).expect("the job is there");
        fake.ended = true;
        let id = fake.id;
        self.send(Event::InputEnded { job: id });
    }

    /// A job of `count` items, all there.
    pub(crate) fn map(&mut self, policy: JobPolicy, count: u64) -> u32 {
        let job = self.open(policy);
        self.arrive(job, 0, count);
        self.end(job);
        job
    }

    pub(crate) fn cancel(&mut self, job: u32) {
        let id = self.jobs[&job].id;
        for agent in self.agents.values_mut() {
            agent.chunks.retain(|chunk| chunk.job != job);
        }
        self.send(Event::JobCancelled { job: id });
        assert_eq!(self.jobs[&job].finished, Some(true));
    }

    /// The agent is through with these items of the chunk at `at`.
    pub(crate) fn run(&mut self, agent: u32, at: usize, first: u64, count: u64, busy_ns: u64) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        let (id, chunk) = (fake.id, fake.through_with(at, first, count));
        self.take_off(chunk.job, first, count);
        let actions =
            self.send(Event::RunDone { agent: id, chunk: chunk.id, attempt: chunk.attempt, first, count, busy_ns });
        assert!(matches!(actions[0], Action::Accept { first: f, count: c, .. } if (f, c) == (first, count)));
    }

    /// The whole chunk at `at`, each item taking `item_ns`.
    pub(crate) fn run_all(&mut self, agent: u32, at: usize, item_ns: u64) {
        let chunk = self.agents[&agent].chunks[at].clone();
        let count = chunk.left.len() as u64;
        assert_eq!(chunk.left.last().expect("something is left") + 1 - chunk.left[0], count, "in one run");
        self.run(agent, at, chunk.left[0], count, count * item_ns);
    }

    pub(crate) fn fault(&mut self, agent: u32, at: usize, item: u64, fault: Fault) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        let (id, chunk) = (fake.id, fake.through_with(at, item, 1));
        self.take_off(chunk.job, item, 1);
        let job = self.jobs.get_mut(&chunk.job).expect("the job is there");
        let state = job.items.get_mut(&item).expect("the item has arrived");
        state.faults += 1;
        let attempts = state.faults;
        let retried = match fault {
            Fault::Final => false,
            Fault::Died => attempts <= job.policy.retries,
            Fault::Panicked => job.policy.retry_panics && attempts <= job.policy.retries,
        };
        let job_id = job.id;
        let actions = self.send(Event::ItemFaulted { agent: id, chunk: chunk.id, attempt: chunk.attempt, item, fault });
        let expected = if retried {
            Action::Retrying { job: job_id, item, attempt: attempts + 1 }
        } else {
            Action::Fail { job: job_id, first: item, count: 1, attempts, cause: Cause::Reported }
        };
        assert_eq!(actions[0], expected);
    }

    pub(crate) fn give_back(&mut self, agent: u32, at: usize, first: u64, count: u64) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.chunks[at].asked_back = false;
        let (id, chunk) = (fake.id, fake.through_with(at, first, count));
        self.take_off(chunk.job, first, count);
        self.send(Event::Returned { agent: id, chunk: chunk.id, attempt: chunk.attempt, first, count });
    }

    /// Runs everything to its end and checks that everything came to one.
    pub(crate) fn drain(&mut self) {
        for job in self.jobs.clone_keys() {
            if !self.jobs[&job].ended && self.jobs[&job].finished.is_none() {
                self.end(job);
            }
        }
        if !self.agents.values().any(|agent| agent.credit > 0) {
            self.join(2, 3);
        }
        let left: usize = self.jobs.values().map(|job| job.items.len()).sum();
        for _ in 0..=2 * left {
            self.schedule();
            for agent in self.agents.keys().copied().collect::<Vec<_>>() {
                let Some(chunk) = self.agents[&agent].chunks.first().cloned() else { continue };
                let runs = chunk.left.chunk_by(|a, b| a + 1 == *b);
                let runs: Vec<_> = runs.map(|run| (run[0], run.len() as u64)).collect();
                for (first, count) in runs {
                    self.run(agent, 0, first, count, 1000 * count);
                }
            }
        }
        self.expect_nothing_left();
    }

    pub(crate) fn expect_nothing_left(&self) {
        for (number, job) in &self.jobs {
            assert!(job.finished.is_some(), "job {number} has not ended");
        }
        assert!(self.agents.values().all(|agent| agent.chunks.is_empty() && agent.knows.is_empty()));
        assert_eq!((self.core.open_jobs(), self.core.chunks_held()), (0, 0));
        assert_eq!(self.core.stale_reports(), self.stale_expected);
    }

    fn take_off(&mut self, job: u32, first: u64, count: u64) {
        let items = &mut self.jobs.get_mut(&job).expect("the job is there").items;
        items.range_mut(first..first + count).for_each(|(_, item)| item.at_agent = false);
    }

    fn apply(&mut self, action: Action) {
        self.log.push(action);
        match action {
            Action::StartJob { agent, job } => {
                assert!(self.agent(agent).knows.insert(job), "{agent:?} was told of {job:?} twice");
            }
            Action::EndJob { agent, job, .. } => {
                assert!(self.agent(agent).knows.remove(&job), "{agent:?} never knew of {job:?}");
            }
            Action::Assign { agent, chunk, job, first, count, attempt } => {
                assert!(self.chunks_seen.insert(chunk), "{chunk:?} was there before");
                let items = first..first + count;
                self.job(job).hand_out(items.clone(), attempt);
                let number = job.index();
                let fake = self.agent(agent);
                assert!(fake.knows.contains(&job), "{agent:?} does not know of {job:?}");
                let left = items.collect();
                fake.chunks.push(FakeChunk { id: chunk, job: number, attempt, first, left, asked_back: false });
                assert!(fake.chunks.len() <= fake.credit as usize, "{agent:?} holds more than it wants");
            }
            Action::Retract { agent, chunk } => {
                let fake = self.agent(agent);
                let spare = fake.chunks.len() > fake.slots as usize;
                let chunk = fake.chunks.iter_mut().find(|held| held.id == chunk).expect("it holds the chunk");
                assert!(!std::mem::replace(&mut chunk.asked_back, true), "asked twice");
                let (job, splits) = (chunk.job, chunk.left.len() > 1);
                let splits = splits && self.jobs[&job].policy.chunksize.is_none();
                assert!(spare || splits, "{agent:?} has nothing to spare");
            }
            Action::Accept { job, first, count } => self.job(job).settle(first..first + count, Outcome::Done),
            Action::Fail { job, first, count, attempts, cause } => {
                let lost = cause == Cause::AgentLost;
                self.job(job).settle(first..first + count, Outcome::Failed { attempts, lost });
            }
            Action::Retrying { job, item, attempt } => {
                assert_eq!(self.job(job).items[&item].faults + 1, attempt);
            }
            Action::JobFinished { job, cancelled } => {
                assert!(self.finished.insert(job), "{job:?} finished twice");
                assert!(self.agents.values().all(|agent| !agent.knows.contains(&job)), "an agent was not told");
                let job = self.job(job);
                job.finished = Some(cancelled);
                let all = job.items.values().all(|item| item.outcome.is_some());
                assert!(cancelled || all && job.ended, "a job finished before its items");
            }
        }
    }

    fn agent(&mut self, id: AgentId) -> &mut FakeAgent {
        self.agents
            .get_mut(&id.index())
            .filter(|agent| agent.id == id)
            .expect("the action is for an agent that is there")
    }

    fn job(&mut self, id: JobId) -> &mut FakeJob {
        self.jobs.get_mut(&id.index()).filter(|job| job.finished.is_none()).expect("the action is about an open job")
    }
}

impl FakeAgent {
    fn through_with(&mut self, at: usize, first: u64, count: u64) -> FakeChunk {
        let chunk = &mut self.chunks[at];
        let before = chunk.left.len();
        chunk.left.retain(|item| !(first..first + count).contains(item));
        assert_eq!(before - chunk.left.len(), count as usize, "the test reports what the agent does not hold");
        let copy = chunk.clone();
        if chunk.left.is_empty() {
            self.chunks.remove(at);
        }
        copy
    }
}

impl FakeJob {
    fn settle(&mut self, items: std::ops::Range<u64>, outcome: Outcome) {
        for index in items {
            let item = self.items.get_mut(&index).expect("the outcome is of an item that has arrived");
            assert!(item.was_handed_out && !item.at_agent, "item {index} is elsewhere");
            assert_eq!(item.outcome.replace(outcome), None, "item {index} has two outcomes");
            if let Outcome::Failed { attempts, .. } = outcome {
                assert_eq!(attempts, item.faults, "item {index} was tried that often");
                assert!(attempts <= self.policy.retries + 1);
            }
        }
    }

    fn hand_out(&mut self, items: std::ops::Range<u64>, attempt: u32) {
        assert!(!items.is_empty());
        let behind = self.items.get(&items.end).cloned();
        let fresh = !self.items[&items.start].was_handed_out;
        for index in items.clone() {
            let item = self.items.get_mut(&index).expect("only what has arrived is handed out");
            assert!(item.outcome.is_none() && !item.at_agent, "item {index} is at two places");
            let expected = if index == items.start { attempt } else { 1 };
            assert_eq!(item.faults + 1, expected, "item {index} is at another attempt");
            item.at_agent = true;
            item.was_handed_out = true;
        }
        let Some(size) = self.policy.chunksize else { return };
        assert_eq!(items.start / size, (items.end - 1) / size, "{items:?} are of two chunks");
        if fresh {
            let starts_right =
                items.start % size == 0 || self.items.get(&(items.start - 1)).is_none_or(|item| item.was_handed_out);
            let full = items.end % size == 0;
            let left_out = behind.is_none() && (self.next > items.end || self.ended);
            let elsewhere = behind.is_some_and(|item| item.was_handed_out);
            assert!(starts_right && (full || left_out || elsewhere), "{items:?} is no whole chunk");
        }
    }

    /// Whether something waits for an agent and for nothing else.
    fn must_be_handed_out(&self) -> bool {
        if self.finished.is_some() {
            return false;
        }
        let waiting = |item: &FakeItem| item.outcome.is_none() && !item.at_agent;
        match self.policy.chunksize {
            None => self.items.values().any(waiting),
            Some(_) if self.ended => self.items.values().any(waiting),
            Some(size) => {
                let whole = self.next / size * size.get();
                self.items.range(..whole).any(|(_, item)| waiting(item))
            }
        }
    }
}

trait Keys {
    fn clone_keys(&self) -> Vec<u32>;
}

impl<T> Keys for BTreeMap<u32, T> {
    fn clone_keys(&self) -> Vec<u32> {
        self.keys().copied().collect()
    }
}
