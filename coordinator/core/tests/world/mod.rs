//! A caller and its agents, faked: they keep their own books of every item and compare each action with them.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;

use farpool_core::{Action, AgentId, Cause, ChunkId, Config, Core, Event, Fault, Id, JobId, JobPolicy, Labels, PoolId};

pub(crate) struct World {
    pub(crate) core: Core,
    config: Config,
    pub(crate) agents: BTreeMap<u32, FakeAgent>,
    pub(crate) jobs: BTreeMap<u32, FakeJob>,
    pub(crate) pools: BTreeMap<u32, FakePool>,
    pub(crate) now: u64,
    /// Whether agents answer at once that a pool has started; otherwise the test says when.
    pub(crate) starts_at_once: bool,
    /// What was done since the test last looked.
    pub(crate) log: Vec<Action>,
    pub(crate) stale_expected: u64,
    finished: HashSet<JobId>,
    chunks_seen: HashSet<ChunkId>,
    generations: HashMap<u32, u32>,
    next_job: u32,
    to_start: Vec<(u32, u32)>,
    to_stop: Vec<(u32, u32)>,
}

pub(crate) struct FakePool {
    pub(crate) id: PoolId,
    pub(crate) limit: u32,
    pub(crate) require: Vec<u32>,
    pub(crate) paused: bool,
}

/// A pool at an agent, as the agent was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FakePlace {
    pub(crate) workers: u32,
    pub(crate) started: bool,
    pub(crate) unfit: bool,
    pub(crate) stopping: bool,
}

pub(crate) struct FakeAgent {
    pub(crate) id: AgentId,
    pub(crate) credit: u32,
    pub(crate) credit_bytes: u64,
    pub(crate) slots: u32,
    pub(crate) labels: Vec<u32>,
    pub(crate) draining: bool,
    /// By the number of the pool.
    pub(crate) places: BTreeMap<u32, FakePlace>,
    /// Oldest first.
    pub(crate) chunks: Vec<FakeChunk>,
    knows: HashSet<JobId>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeChunk {
    pub(crate) id: ChunkId,
    pub(crate) job: u32,
    pub(crate) pool: u32,
    pub(crate) attempt: u32,
    pub(crate) first: u64,
    /// Items it is not through with, rising.
    pub(crate) left: Vec<u64>,
    pub(crate) asked_back: bool,
}

pub(crate) struct FakeJob {
    pub(crate) id: JobId,
    pub(crate) pool: u32,
    pub(crate) require: Vec<u32>,
    /// Bytes of each of its items.
    pub(crate) item_bytes: u64,
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
        let mut world = Self::empty(config);
        world.open_pool(POOL, 0, 1);
        world
    }

    /// Without the pool that most tests use.
    pub(crate) fn empty(config: Config) -> Self {
        Self {
            core: Core::new(config.clone()),
            config,
            agents: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pools: BTreeMap::new(),
            now: 0,
            starts_at_once: true,
            log: Vec::new(),
            stale_expected: 0,
            finished: HashSet::new(),
            chunks_seen: HashSet::new(),
            generations: HashMap::new(),
            next_job: 0,
            to_start: Vec::new(),
            to_stop: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, event: Event) -> Vec<Action> {
        self.now += 1000;
        let mut actions = Vec::new();
        self.core.handle(event, self.now, &mut actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Assign { .. } | Action::Retract { .. })));
        actions.iter().for_each(|action| self.apply(*action));
        self.check_limits();
        for (agent, pool) in std::mem::take(&mut self.to_start) {
            if self.starts_at_once {
                self.started(agent, pool);
            }
        }
        for (agent, pool) in std::mem::take(&mut self.to_stop) {
            if self.starts_at_once {
                self.stopped(agent, pool);
            }
        }
        actions
    }

    pub(crate) fn schedule(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.schedule(self.now, &mut actions);
        actions.iter().for_each(|action| self.apply(*action));
        // Places of pools with a limit are given up where jobs of the pool require others.
        let moves = |job: &FakeJob| {
            self.pools[&job.pool].limit > 0
                && self.jobs.values().any(|other| other.pool == job.pool && !other.require.is_empty())
        };
        for (number, job) in self.jobs.iter().filter(|(_, job)| job.must_be_handed_out() && !moves(job)) {
            let place = self.agents.iter().find(|(_, agent)| self.takes(agent, job));
            assert!(
                place.is_none(),
                "agent {} has room for what job {number} has, and nothing happens",
                place.unwrap().0
            );
        }
        actions
    }

    /// Whether a chunk of the job could go to the agent now.
    fn takes(&self, agent: &FakeAgent, job: &FakeJob) -> bool {
        let pool = &self.pools[&job.pool];
        self.may_run(agent, job)
            && !pool.paused
            && agent.chunks.len() < agent.credit as usize
            && (agent.credit_bytes == 0 || self.bytes_at(agent) < agent.credit_bytes)
            && (pool.limit == 0 || agent.held_of(job.pool) < agent.share_of(job.pool))
    }

    fn may_run(&self, agent: &FakeAgent, job: &FakeJob) -> bool {
        let mut required = self.pools[&job.pool].require.iter().chain(&job.require);
        let place = agent.places.get(&job.pool);
        let started = place.is_some_and(|place| place.started && !place.unfit && !place.stopping);
        started && !agent.draining && required.all(|label| agent.labels.contains(label))
    }

    fn bytes_at(&self, agent: &FakeAgent) -> u64 {
        agent.chunks.iter().map(|chunk| chunk.left.len() as u64 * self.jobs[&chunk.job].item_bytes).sum()
    }

    /// Pools with a limit cannot run more at once than that, whatever their agents do with what they hold.
    fn check_limits(&self) {
        for (&number, pool) in self.pools.iter().filter(|(_, pool)| pool.limit > 0) {
            let at = |agent: &FakeAgent| {
                let place = agent.places.get(&number).filter(|place| !place.unfit)?;
                // One that leaves keeps only those workers busy that what it holds needs.
                let most = |chunk: &FakeChunk| match self.jobs[&chunk.job].policy.chunksize {
                    Some(_) => 1,
                    None => chunk.left.len() as u32,
                };
                let held = agent.chunks.iter().filter(|chunk| chunk.pool == number).map(most).sum::<u32>();
                Some(if agent.draining { held.min(place.workers) } else { place.workers })
            };
            let workers: u32 = self.agents.values().filter_map(at).sum();
            assert!(workers <= pool.limit, "pool {number} has {workers} workers, and its limit is {}", pool.limit);
        }
    }

    pub(crate) fn join(&mut self, slots: u32, credit: u32) -> u32 {
        self.join_with(slots, credit, &[])
    }

    pub(crate) fn join_with(&mut self, slots: u32, credit: u32, labels: &[u32]) -> u32 {
        // Places are used again, as a caller's slab does.
        let place = (0..).find(|place| !self.agents.contains_key(place)).expect("there is always a place");
        let generation = self.generations.entry(place).or_insert(0);
        *generation += 1;
        let id = AgentId::new(place, *generation);
        let agent = FakeAgent {
            id,
            credit: 0,
            credit_bytes: 0,
            slots,
            labels: labels.to_vec(),
            draining: false,
            places: BTreeMap::new(),
            chunks: Vec::new(),
            knows: HashSet::new(),
        };
        self.agents.insert(place, agent);
        self.send(Event::AgentJoined { agent: id, slots, labels: Labels::new(labels.iter().copied()) });
        self.credit(place, credit);
        place
    }

    pub(crate) fn credit(&mut self, agent: u32, chunks: u32) {
        self.credit_bytes(agent, chunks, 0);
    }

    pub(crate) fn credit_bytes(&mut self, agent: u32, chunks: u32, bytes: u64) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        (fake.credit, fake.credit_bytes) = (chunks, bytes);
        let id = fake.id;
        self.send(Event::AgentCredit { agent: id, chunks, bytes });
    }

    /// The agent answers that the pool runs there.
    pub(crate) fn started(&mut self, agent: u32, pool: u32) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.places.get_mut(&pool).expect("it was told to start the pool").started = true;
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceStarted { pool, agent });
    }

    /// The agent answers that the pool has stopped there.
    pub(crate) fn stopped(&mut self, agent: u32, pool: u32) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.places.remove(&pool).filter(|place| place.stopping).expect("it was told to stop the pool");
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceStopped { pool, agent });
    }

    /// The agent answers that the pool cannot run there.
    pub(crate) fn unfit(&mut self, agent: u32, pool: u32) -> Vec<Action> {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.places.get_mut(&pool).expect("it was told to start the pool").unfit = true;
        let agent = fake.id;
        let gone: Vec<FakeChunk> = fake.chunks.extract_if(.., |chunk| chunk.pool == pool).collect();
        for chunk in gone {
            let items = &mut self.jobs.get_mut(&chunk.job).expect("the job is there").items;
            chunk.left.iter().for_each(|item| items.get_mut(item).expect("it has arrived").at_agent = false);
        }
        let pool = self.pools[&pool].id;
        self.send(Event::PlaceUnfit { pool, agent })
    }

    /// The agent is leaving: it will give back what has not begun.
    pub(crate) fn drain_agent(&mut self, agent: u32) -> Vec<Action> {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.draining = true;
        let id = fake.id;
        self.send(Event::AgentDraining { agent: id })
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
        self.open_pool_with(number, slots, weight, &[])
    }

    pub(crate) fn open_pool_with(&mut self, number: u32, slots: u32, weight: u32, require: &[u32]) -> PoolId {
        let generation = self.generations.entry(number | 1 << 31).or_insert(0);
        *generation += 1;
        let pool = PoolId::new(number, *generation);
        self.pools.insert(number, FakePool { id: pool, limit: slots, require: require.to_vec(), paused: false });
        let require = Labels::new(require.iter().copied());
        self.send(Event::PoolOpened { pool, slots: NonZeroU32::new(slots), weight, require, held: Vec::new() });
        pool
    }

    pub(crate) fn close_pool(&mut self, number: u32) {
        let pool = self.pools[&number].id;
        for agent in self.agents.values_mut() {
            agent.chunks.retain(|chunk| chunk.pool != number);
            agent.places.remove(&number);
        }
        self.send(Event::PoolClosed { pool });
        self.pools.remove(&number);
        assert!(self.jobs.values().all(|job| job.pool != number || job.finished.is_some()));
    }

    pub(crate) fn pause(&mut self, number: u32, paused: bool) {
        let pool = self.pools.get_mut(&number).expect("the pool is there");
        pool.paused = paused;
        let pool = pool.id;
        self.send(Event::PoolPaused { pool, paused });
    }

    pub(crate) fn open(&mut self, policy: JobPolicy) -> u32 {
        self.open_in(pool(), policy)
    }

    pub(crate) fn open_in(&mut self, pool: PoolId, policy: JobPolicy) -> u32 {
        self.open_with(pool, policy, &[], 8)
    }

    pub(crate) fn open_with(&mut self, pool: PoolId, policy: JobPolicy, require: &[u32], item_bytes: u64) -> u32 {
        let job = self.next_job;
        self.next_job += 1;
        let id = JobId::new(job, 1);
        let fake = FakeJob {
            id,
            pool: pool.index(),
            require: require.to_vec(),
            item_bytes,
            policy,
            items: BTreeMap::new(),
            next: 0,
            ended: false,
            finished: None,
        };
        self.jobs.insert(job, fake);
        self.send(Event::JobOpened { job: id, pool, policy, require: Labels::new(require.iter().copied()) });
        job
    }

    /// `count` items behind a gap of `gap`.
    pub(crate) fn arrive(&mut self, job: u32, gap: u64, count: u64) {
        let fake = self.jobs.get_mut(&job).expect("the job is there");
        let first = fake.next + gap;
        fake.next = first + count;
        fake.items.extend((first..first + count).map(|item| (item, FakeItem::default())));
        let (id, bytes) = (fake.id, fake.item_bytes * count);
        self.send(Event::ItemsArrived { job: id, first, count, bytes });
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
        for pool in self.pools.keys().copied().collect::<Vec<_>>() {
            self.pause(pool, false);
        }
        self.starts_at_once = true;
        loop {
            let next = self.starting().next();
            let Some((agent, pool)) = next else { break };
            self.started(agent, pool);
        }
        loop {
            let next = self.stopping().next();
            let Some((agent, pool)) = next else { break };
            self.stopped(agent, pool);
        }
        for agent in self.agents.keys().copied().collect::<Vec<_>>() {
            self.credit(agent, self.agents[&agent].credit.max(1));
        }
        // Somebody can run each of the jobs.
        let mut open = self.jobs.values().filter(|job| job.finished.is_none());
        if !open.all(|job| self.agents.values().any(|agent| agent.credit > 0 && self.may_run(agent, job))) {
            self.join_with(2, 3, &[0, 1, 2, 3]);
            let free_slots: u32 = self.pools.values().map(|pool| pool.limit).sum();
            self.join_with(free_slots.max(1), 40, &[0, 1, 2, 3]);
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

    /// Agents and the pools that they are starting.
    pub(crate) fn starting(&self) -> impl Iterator<Item = (u32, u32)> {
        self.agents.iter().flat_map(|(&agent, fake)| {
            let starting = fake.places.iter().filter(|(_, place)| !place.started && !place.unfit && !place.stopping);
            starting.map(move |(&pool, _)| (agent, pool))
        })
    }

    /// Agents and the pools that they are stopping.
    pub(crate) fn stopping(&self) -> impl Iterator<Item = (u32, u32)> {
        self.agents.iter().flat_map(|(&agent, fake)| {
            fake.places.iter().filter(|(_, place)| place.stopping).map(move |(&pool, _)| (agent, pool))
        })
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
            Action::StartPool { agent, pool, workers } => {
                let fake = self.agent(agent);
                let place = FakePlace {
                    workers: workers.map_or(fake.slots, Into::into),
                    started: false,
                    unfit: false,
                    stopping: false,
                };
                assert!(!fake.draining && place.workers <= fake.slots);
                let known = fake.places.insert(pool.index(), place);
                assert!(known.is_none(), "{agent:?} was told of {pool:?} twice");
                let fake = &self.agents[&agent.index()];
                let FakePool { require, limit, .. } = &self.pools[&pool.index()];
                assert!(require.iter().all(|label| fake.labels.contains(label)), "{pool:?} may not run there");
                assert_eq!(workers.is_some(), *limit > 0);
                self.to_start.push((agent.index(), pool.index()));
            }
            Action::ResizePool { agent, pool, workers } => {
                let fake = self.agent(agent);
                assert!(!fake.draining && workers.get() <= fake.slots);
                let place = fake.places.get_mut(&pool.index()).expect("it knows of the pool");
                assert!(!place.unfit && place.workers < workers.get());
                place.workers = workers.get();
            }
            Action::StopPool { agent, pool } => {
                let fake = self.agent(agent);
                assert_eq!(fake.held_of(pool.index()), 0, "it is not through with what it holds");
                let place = fake.places.get_mut(&pool.index()).expect("it knows of the pool");
                assert!(!std::mem::replace(&mut place.stopping, true) && !place.unfit && !fake.draining);
                self.to_stop.push((agent.index(), pool.index()));
            }
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
                let (number, pool) = (job.index(), self.jobs[&job.index()].pool);
                let (fake, state) = (&self.agents[&agent.index()], &self.jobs[&number]);
                assert!(self.takes(fake, state), "{agent:?} cannot take a chunk of {job:?}");
                let bytes = self.config.chunk_target_bytes.max(state.item_bytes);
                assert!(state.policy.chunksize.is_some() || count * state.item_bytes <= bytes, "a chunk of {count}");
                let fake = self.agent(agent);
                assert!(fake.knows.contains(&job), "{agent:?} does not know of {job:?}");
                let left = items.collect();
                fake.chunks.push(FakeChunk { id: chunk, job: number, pool, attempt, first, left, asked_back: false });
            }
            Action::Retract { agent, chunk } => {
                let fake = self.agent(agent);
                let waits_for_slot = fake.chunks.len() > fake.slots as usize;
                let counts: BTreeMap<u32, u32> = fake.places.keys().map(|&pool| (pool, fake.held_of(pool))).collect();
                let chunk = fake.chunks.iter_mut().find(|held| held.id == chunk).expect("it holds the chunk");
                assert!(!std::mem::replace(&mut chunk.asked_back, true), "asked twice");
                let (job, pool, splits) = (chunk.job, chunk.pool, chunk.left.len() > 1);
                let waits_for_worker = counts[&pool] > fake.places[&pool].workers;
                let job = &self.jobs[&job];
                let splits = splits && job.policy.chunksize.is_none();
                assert!(waits_for_slot || waits_for_worker || splits, "{agent:?} has nothing to spare");
                let idles = |other: &FakeAgent| other.chunks.len() < other.slots as usize && other.id != agent;
                let runs = self.agents.values().any(|other| idles(other) && self.takes(other, job));
                assert!(runs, "what was asked back can run nowhere else");
                assert!(!self.pools[&pool].paused);
            }
            Action::Adopt { .. } | Action::CancelChunk { .. } => panic!("nothing was held or doubled"),
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
    pub(crate) fn held_of(&self, pool: u32) -> u32 {
        self.chunks.iter().filter(|chunk| chunk.pool == pool).count() as u32
    }

    /// Chunks of a pool with a limit that it may hold.
    fn share_of(&self, pool: u32) -> u32 {
        self.places[&pool].workers.max(1) + self.credit.saturating_sub(self.slots)
    }

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
