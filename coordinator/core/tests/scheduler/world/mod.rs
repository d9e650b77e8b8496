//! A fake caller and fake agents: they keep their own records of every item and compare each action with them.

mod actions;
mod agents;
mod clients;
mod fakes;
mod reports;
pub(crate) mod restart;

use std::collections::{BTreeMap, HashMap, HashSet};

use farpool_core::{Action, ChunkId, Config, Core, Event, Id, JobId, PoolId};

pub(crate) use fakes::{FakeAgent, FakeChunk, FakeItem, FakeJob, FakePlace, FakePool, Outcome};

pub(crate) struct World {
    pub(crate) core: Core,
    config: Config,
    pub(crate) agents: BTreeMap<u32, FakeAgent>,
    pub(crate) jobs: BTreeMap<u32, FakeJob>,
    pub(crate) pools: BTreeMap<u32, FakePool>,
    pub(crate) now: u64,
    /// Whether agents answer at once that a pool has started; otherwise the test decides when.
    pub(crate) starts_at_once: bool,
    /// Whether workers of pools with a limit may be moving.
    pub(crate) some_were_unhealthy: bool,
    /// The actions since the test last looked.
    pub(crate) log: Vec<Action>,
    pub(crate) stale_expected: u64,
    /// Agents that the core considers lost.
    pub(crate) away: Vec<FakeAgent>,
    /// Copies that were made, and chunks that were cancelled or adopted.
    pub(crate) copies: u32,
    pub(crate) cancelled: HashSet<ChunkId>,
    pub(crate) adopted: u32,
    finished: HashSet<JobId>,
    chunks_seen: HashSet<ChunkId>,
    generations: HashMap<u32, u32>,
    next_job: u32,
    life: u32,
    to_start: Vec<(u32, u32, bool)>,
    to_stop: Vec<(u32, u32)>,
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

    /// A world without the pool that most tests use.
    pub(crate) fn empty(mut config: Config) -> Self {
        config.check = true;
        Self {
            core: Core::new(config.clone()),
            config,
            agents: BTreeMap::new(),
            jobs: BTreeMap::new(),
            pools: BTreeMap::new(),
            now: 0,
            starts_at_once: true,
            some_were_unhealthy: false,
            log: Vec::new(),
            stale_expected: 0,
            away: Vec::new(),
            copies: 0,
            cancelled: HashSet::new(),
            adopted: 0,
            finished: HashSet::new(),
            chunks_seen: HashSet::new(),
            generations: HashMap::new(),
            next_job: 0,
            life: 1,
            to_start: Vec::new(),
            to_stop: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, event: Event) -> Vec<Action> {
        self.now += 1000;
        let mut actions = Vec::new();
        self.core.handle(event, &mut actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Assign { .. } | Action::Retract { .. })));
        actions.iter().for_each(|action| self.apply(*action));
        self.check_after();
        actions
    }

    fn check_after(&mut self) {
        self.check_limits();
        self.check_held();
        self.answer_places();
    }

    /// Has agents that were told to start or stop a pool answer that they have.
    fn answer_places(&mut self) {
        for (agent, pool, resumed) in std::mem::take(&mut self.to_start) {
            let stops = self.agents[&agent].places[&pool].stopping;
            if (self.starts_at_once || resumed) && !stops {
                self.started(agent, pool);
            }
        }
        for (agent, pool) in std::mem::take(&mut self.to_stop) {
            if self.starts_at_once {
                self.stopped(agent, pool);
            }
        }
    }

    pub(crate) fn schedule(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.core.schedule(self.now, &mut actions);
        actions.iter().for_each(|action| self.apply(*action));
        self.check_held();
        if !(self.to_start.is_empty() && self.to_stop.is_empty()) {
            self.check_limits();
            self.answer_places();
            return [actions, self.schedule()].concat();
        }
        // Places of pools with a limit are given up if jobs of the pool need other agents, or if workers have died.
        let moves = |job: &FakeJob| {
            let others = || self.jobs.values().any(|other| other.pool == job.pool && !other.require.is_empty());
            self.pools[&job.pool].limit > 0 && (self.some_were_unhealthy || others())
        };
        for (number, job) in self.jobs.iter().filter(|(_, job)| job.must_be_handed_out() && !moves(job)) {
            let place = self.agents.iter().find(|(_, agent)| self.takes(agent, job));
            assert!(place.is_none(), "agent {} has room for job {number}, and nothing is handed out", place.unwrap().0);
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
        let started = place.is_some_and(|place| place.started && !place.unhealthy && !place.unfit && !place.stopping);
        started && !agent.draining && required.all(|label| agent.labels.contains(label))
    }

    fn bytes_at(&self, agent: &FakeAgent) -> u64 {
        agent.chunks.iter().map(|chunk| self.wanted(chunk).count() as u64 * self.jobs[&chunk.job].item_bytes).sum()
    }

    /// Returns the chunk's unfinished items that have no outcome from another agent.
    pub(crate) fn wanted(&self, chunk: &FakeChunk) -> impl Iterator<Item = u64> {
        let items = &self.jobs[&chunk.job].items;
        chunk.left.iter().copied().filter(|item| items[item].outcome.is_none())
    }

    /// Checks that the core counts exactly the chunks that agents hold: finished and cancelled ones occupy no slot.
    fn check_held(&self) {
        for agent in self.agents.values() {
            assert_eq!(self.core.chunks_at(agent.id), agent.chunks.len() as u32, "{:?}", agent.id);
            assert!(agent.chunks.iter().all(|chunk| self.wanted(chunk).next().is_some()));
        }
    }

    /// Checks that pools with a limit never run more at once, whatever agents do with the items that they hold.
    fn check_limits(&self) {
        for (&number, pool) in self.pools.iter().filter(|(_, pool)| pool.limit > 0) {
            let at = |agent: &FakeAgent| {
                let place = agent.places.get(&number).filter(|place| !place.unfit)?;
                // A leaving agent keeps only as many workers as its chunks need.
                let most = |chunk: &FakeChunk| match self.jobs[&chunk.job].policy.chunksize {
                    Some(_) => 1,
                    None => self.wanted(chunk).count() as u32,
                };
                let held = agent.chunks.iter().filter(|chunk| chunk.pool == number).map(most).sum::<u32>();
                Some(if agent.draining { held.min(place.workers) } else { place.workers })
            };
            let workers: u32 = self.agents.values().filter_map(at).sum();
            assert!(workers <= pool.limit, "pool {number} has {workers} workers, and its limit is {}", pool.limit);
        }
    }

    /// Runs everything to its end and checks that everything ended.
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
        // Each job has an agent that can run it.
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
                for (first, count) in runs(&chunk.left) {
                    // It may have been cancelled.
                    if self.agents[&agent].chunks.first().is_some_and(|first| first.id == chunk.id) {
                        self.run(agent, 0, first, count, 1000 * count);
                    }
                }
            }
        }
        self.expect_nothing_left();
    }

    /// Returns agents and the pools that they are starting.
    pub(crate) fn starting(&self) -> impl Iterator<Item = (u32, u32)> {
        self.agents.iter().flat_map(|(&agent, fake)| {
            let starts = |place: &FakePlace| !place.started || place.unhealthy;
            let starting =
                fake.places.iter().filter(move |(_, place)| starts(place) && !place.unfit && !place.stopping);
            starting.map(move |(&pool, _)| (agent, pool))
        })
    }

    /// Returns agents and the pools that they are stopping.
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

    fn agent_at(&mut self, place: u32) -> &mut FakeAgent {
        self.agents.get_mut(&place).expect("the agent exists")
    }
}

/// Returns the runs that sorted numbers consist of.
pub(crate) fn runs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run.len() as u64)).collect()
}

trait Keys {
    fn clone_keys(&self) -> Vec<u32>;
}

impl<T> Keys for BTreeMap<u32, T> {
    fn clone_keys(&self) -> Vec<u32> {
        self.keys().copied().collect()
    }
}
