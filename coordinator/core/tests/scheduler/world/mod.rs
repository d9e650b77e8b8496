//! A caller and its agents, faked: they keep their own books of every item and compare each action with them.

pub(crate) mod restart;

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
    /// Workers of pools with a limit may be on the move.
    pub(crate) some_have_ailed: bool,
    /// What was done since the test last looked.
    pub(crate) log: Vec<Action>,
    pub(crate) stale_expected: u64,
    /// Agents that the core takes for lost.
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
    /// Its workers die there: until it is started again nothing of it may come.
    pub(crate) ails: bool,
    pub(crate) unfit: bool,
    pub(crate) stopping: bool,
    /// Whether it ran there before the core knew of it.
    pub(crate) resumed: bool,
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
    /// What it had before it comes back.
    pub(crate) held_places: BTreeMap<u32, FakePlace>,
    pub(crate) held_chunks: Vec<FakeChunk>,
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
    /// Whether others were first with items that it held then.
    pub(crate) overtaken: bool,
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
    /// What ended here when the core was started anew may be cut here.
    pub(crate) resent_to: u64,
    pub(crate) ended: bool,
    pub(crate) finished: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FakeItem {
    /// Tries that have ended badly.
    pub(crate) faults: u32,
    /// Agents that hold it.
    pub(crate) copies: u32,
    pub(crate) was_handed_out: bool,
    /// How often it may have begun: it was handed out, and no agent has said that it has not.
    pub(crate) begun: u32,
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
            some_have_ailed: false,
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

    /// Agents that were told to start or stop a pool have done it.
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
        // Places of pools with a limit are given up where jobs of the pool require others, and where workers have died.
        let moves = |job: &FakeJob| {
            let others = || self.jobs.values().any(|other| other.pool == job.pool && !other.require.is_empty());
            self.pools[&job.pool].limit > 0 && (self.some_have_ailed || others())
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
        let started = place.is_some_and(|place| place.started && !place.ails && !place.unfit && !place.stopping);
        started && !agent.draining && required.all(|label| agent.labels.contains(label))
    }

    fn bytes_at(&self, agent: &FakeAgent) -> u64 {
        agent.chunks.iter().map(|chunk| self.wanted(chunk).count() as u64 * self.jobs[&chunk.job].item_bytes).sum()
    }

    /// The items that the agent holds of the chunk and that nobody else was first with.
    pub(crate) fn wanted(&self, chunk: &FakeChunk) -> impl Iterator<Item = u64> {
        let items = &self.jobs[&chunk.job].items;
        chunk.left.iter().copied().filter(|item| items[item].outcome.is_none())
    }

    /// What an agent holds is what the core thinks that it does: no slot is lost to what is done or cancelled.
    fn check_held(&self) {
        for agent in self.agents.values() {
            assert_eq!(self.core.chunks_at(agent.id), agent.chunks.len() as u32, "{:?}", agent.id);
            assert!(agent.chunks.iter().all(|chunk| self.wanted(chunk).next().is_some()));
        }
    }

    /// Pools with a limit cannot run more at once than that, whatever their agents do with what they hold.
    fn check_limits(&self) {
        for (&number, pool) in self.pools.iter().filter(|(_, pool)| pool.limit > 0) {
            let at = |agent: &FakeAgent| {
                let place = agent.places.get(&number).filter(|place| !place.unfit)?;
                // One that leaves keeps only those workers busy that what it holds needs.
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

    pub(crate) fn join(&mut self, slots: u32, credit: u32) -> u32 {
        self.join_with(slots, credit, &[])
    }

    pub(crate) fn join_with(&mut self, slots: u32, credit: u32, labels: &[u32]) -> u32 {
        self.enter(FakeAgent {
            id: AgentId::new(0, 0),
            credit,
            credit_bytes: 0,
            slots,
            labels: labels.to_vec(),
            draining: false,
            places: BTreeMap::new(),
            chunks: Vec::new(),
            held_places: BTreeMap::new(),
            held_chunks: Vec::new(),
            knows: HashSet::new(),
        })
    }

    /// The agent says hello, and not yet whether it is leaving.
    pub(crate) fn enter(&mut self, agent: FakeAgent) -> u32 {
        // Places are used again, as a caller's slab does.
        let place = (0..).find(|place| !self.agents.contains_key(place)).expect("there is always a place");
        let generation = self.generations.entry(place).or_insert(0);
        *generation += 1;
        let id = AgentId::new(place, *generation);
        let FakeAgent { slots, credit, credit_bytes, .. } = agent;
        let labels = Labels::new(agent.labels.iter().copied());
        self.agents.insert(place, FakeAgent { id, credit: 0, draining: false, ..agent });
        self.send(Event::AgentJoined { agent: id, slots, labels });
        self.credit_bytes(place, credit, credit_bytes);
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
        let place = fake.places.get_mut(&pool).expect("it was told to start the pool");
        (place.started, place.ails) = (true, false);
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceStarted { pool, agent });
    }

    /// The pool's workers die at the agent before they can serve.
    pub(crate) fn place_ails(&mut self, agent: u32, pool: u32) -> Vec<Action> {
        self.some_have_ailed = true;
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.places.get_mut(&pool).expect("it was told to start the pool").ails = true;
        let (agent, pool) = (fake.id, self.pools[&pool].id);
        self.send(Event::PlaceAils { pool, agent })
    }

    /// The agent answers that the pool has stopped there.
    pub(crate) fn stopped(&mut self, agent: u32, pool: u32) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.places.remove(&pool).filter(|place| place.stopping).expect("it was told to stop the pool");
        // With the pool it forgets its jobs.
        let jobs = &self.jobs;
        fake.knows.retain(|job| jobs.get(&job.index()).is_none_or(|job| job.pool != pool));
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
            let held = items.iter_mut().filter(|(index, item)| chunk.left.contains(index) && item.outcome.is_none());
            held.for_each(|(_, item)| item.has_not_begun());
        }
        let pool = self.pools[&pool].id;
        self.send(Event::PlaceUnfit { pool, agent })
    }

    /// Workers die there, or do so no more.
    pub(crate) fn ails(&mut self, agent: u32, ails: bool) -> Vec<Action> {
        self.some_have_ailed |= ails;
        let agent = self.agents[&agent].id;
        self.send(Event::AgentAils { agent, ails })
    }

    /// The agent is leaving: it will give back what has not begun.
    pub(crate) fn drain_agent(&mut self, agent: u32) -> Vec<Action> {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.draining = true;
        let id = fake.id;
        self.send(Event::AgentDraining { agent: id })
    }

    pub(crate) fn lose(&mut self, agent: u32) {
        self.take_away(agent);
    }

    /// The core takes the agent for lost, and so it is, or comes back.
    pub(crate) fn take_away(&mut self, agent: u32) -> FakeAgent {
        let gone = self.agents.remove(&agent).expect("the agent is there");
        // The books first: what was there is nowhere now, and the first item left of each chunk was running.
        let mut must_fail = Vec::new();
        for chunk in &gone.chunks {
            let wanted: Vec<u64> = self.wanted(chunk).collect();
            let job = self.jobs.get_mut(&chunk.job).expect("the job is there");
            let at_most_once = job.policy.retries == 0;
            for (at, item) in wanted.iter().enumerate() {
                let state = job.items.get_mut(item).expect("the item has arrived");
                state.copies -= 1;
                if state.copies == 0 && (at_most_once || at == 0) {
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
        gone
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
        let (slots, held) = (NonZeroU32::new(slots), Vec::new());
        self.send(Event::PoolOpened { pool, slots, weight, require, held });
        pool
    }

    pub(crate) fn close_pool(&mut self, number: u32) {
        let pool = self.pools[&number].id;
        for agent in self.agents.values_mut().chain(&mut self.away) {
            agent.chunks.retain(|chunk| chunk.pool != number);
            agent.places.remove(&number);
            agent.held_chunks.retain(|chunk| chunk.pool != number);
            agent.held_places.remove(&number);
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
        let id = JobId::new(job, self.life);
        let fake = FakeJob {
            id,
            pool: pool.index(),
            require: require.to_vec(),
            item_bytes,
            policy,
            items: BTreeMap::new(),
            next: 0,
            resent_to: 0,
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

    pub(crate) fn stop_retries(&mut self, job: u32) {
        let fake = self.jobs.get_mut(&job).expect("the job is there");
        (fake.policy.retry_panics, fake.policy.retry_failed) = (false, false);
        let job = fake.id;
        assert_eq!(self.send(Event::RetriesStopped { job }), []);
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
        self.report(agent, at, (first, count), busy_ns, false);
    }

    /// The same with results that count as failed.
    pub(crate) fn run_failed(&mut self, agent: u32, at: usize, first: u64, count: u64, busy_ns: u64) {
        self.report(agent, at, (first, count), busy_ns, true);
    }

    fn report(&mut self, agent: u32, at: usize, (first, count): (u64, u64), busy_ns: u64, failed: bool) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        let (id, chunk) = (fake.id, fake.through_with(at, first, count));
        let fresh = self.take_off(chunk.job, first, count);
        let job = self.jobs.get_mut(&chunk.job).expect("the job is there");
        let (retries, again) = (job.policy.retries, failed && job.policy.retry_failed && job.policy.retries > 0);
        let (mut accepted, mut retried) = (Vec::new(), Vec::new());
        for item in fresh.into_iter().flat_map(|(first, count)| first..first + count) {
            let state = job.items.get_mut(&item).expect("the item has arrived");
            if again && (state.copies > 0 || state.faults < retries) {
                state.faults += 1;
                assert!(state.faults <= retries, "a copy of what was tried too often");
                retried.extend((state.copies == 0).then_some((item, state.faults + 1)));
            } else {
                accepted.push(item);
            }
        }
        let (chunk, attempt) = (chunk.id, chunk.attempt);
        let actions = self.send(Event::RunDone { agent: id, chunk, attempt, first, count, busy_ns, failed });
        let mut told = (Vec::new(), Vec::new());
        for action in &actions {
            match *action {
                Action::Accept { first, count, .. } => {
                    assert!(told.1.is_empty(), "a retry drops the report, so it comes last: {actions:?}");
                    told.0.extend(first..first + count);
                }
                Action::Retrying { item, attempt, .. } => told.1.push((item, attempt)),
                _ => {}
            }
        }
        assert_eq!(told, (accepted, retried), "of {first}+{count}: {actions:?}");
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
        let event = Event::ItemFaulted { agent: id, chunk: chunk.id, attempt: chunk.attempt, item, fault };
        if self.take_off(chunk.job, item, 1).is_empty() {
            assert_eq!(self.send(event), []);
            return;
        }
        let job = self.jobs.get_mut(&chunk.job).expect("the job is there");
        let state = job.items.get_mut(&item).expect("the item has arrived");
        state.faults += 1;
        let attempts = state.faults;
        let may_retry = match fault {
            Fault::Final => false,
            Fault::Died => true,
            Fault::Panicked => job.policy.retry_panics,
        };
        let (job_id, retries, goes_on) = (job.id, job.policy.retries, may_retry && state.copies > 0);
        let actions = self.send(event);
        let expected = if goes_on {
            assert!(attempts <= retries, "a copy of what was tried too often");
            None
        } else if may_retry && attempts <= retries {
            Some(Action::Retrying { job: job_id, item, attempt: attempts + 1 })
        } else {
            Some(Action::Fail { job: job_id, first: item, count: 1, attempts, cause: Cause::Reported })
        };
        let fate = actions.iter().find(|action| matches!(action, Action::Retrying { .. } | Action::Fail { .. }));
        assert_eq!(fate, expected.as_ref());
    }

    pub(crate) fn give_back(&mut self, agent: u32, at: usize, first: u64, count: u64) {
        let fake = self.agents.get_mut(&agent).expect("the agent is there");
        fake.chunks[at].asked_back = false;
        let (id, chunk) = (fake.id, fake.through_with(at, first, count));
        let fresh = if count == 0 { Vec::new() } else { self.take_off(chunk.job, first, count) };
        let items = &mut self.jobs.get_mut(&chunk.job).expect("the job is there").items;
        for (first, count) in fresh {
            items.range_mut(first..first + count).for_each(|(_, item)| item.begun -= 1);
        }
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

    /// Agents and the pools that they are starting.
    pub(crate) fn starting(&self) -> impl Iterator<Item = (u32, u32)> {
        self.agents.iter().flat_map(|(&agent, fake)| {
            let starts = |place: &FakePlace| !place.started || place.ails;
            let starting =
                fake.places.iter().filter(move |(_, place)| starts(place) && !place.unfit && !place.stopping);
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

    /// An agent says something about these items. Returns the runs of those that nobody else was first with.
    fn take_off(&mut self, job: u32, first: u64, count: u64) -> Vec<(u64, u64)> {
        let items = &mut self.jobs.get_mut(&job).expect("the job is there").items;
        let all = items.range_mut(first..first + count);
        let fresh: Vec<u64> = all.filter(|(_, item)| item.outcome.is_none()).map(|(&index, _)| index).collect();
        fresh.iter().for_each(|index| items.get_mut(index).expect("it was just found").copies -= 1);
        self.stale_expected += u64::from(fresh.len() < count as usize);
        runs(&fresh)
    }

    fn apply(&mut self, action: Action) {
        self.log.push(action);
        match action {
            Action::StartPool { agent, pool, workers } => {
                let resumed = self.told_to_resume(agent, pool);
                let fake = self.agent(agent);
                let place = FakePlace {
                    workers: workers.map_or(fake.slots, Into::into),
                    started: false,
                    ails: false,
                    unfit: false,
                    stopping: false,
                    resumed,
                };
                assert!(place.workers <= fake.slots);
                let known = fake.places.insert(pool.index(), place);
                assert!(known.is_none(), "{agent:?} was told of {pool:?} twice");
                assert!(!fake.draining || resumed, "{agent:?} leaves");
                let fake = &self.agents[&agent.index()];
                let FakePool { require, limit, .. } = &self.pools[&pool.index()];
                assert!(require.iter().all(|label| fake.labels.contains(label)), "{pool:?} may not run there");
                assert_eq!(workers.is_some(), *limit > 0);
                self.to_start.push((agent.index(), pool.index(), resumed));
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
                let copied = self.job(job).items[&first].copies > 0;
                if copied {
                    self.expect_copy(agent, job, items.clone());
                }
                self.job(job).hand_out(items.clone(), attempt, copied);
                let (number, pool) = (job.index(), self.jobs[&job.index()].pool);
                let (fake, state) = (&self.agents[&agent.index()], &self.jobs[&number]);
                assert!(self.takes(fake, state), "{agent:?} cannot take a chunk of {job:?}");
                let bytes = self.config.chunk_target_bytes.max(state.item_bytes);
                assert!(state.policy.chunksize.is_some() || count * state.item_bytes <= bytes, "a chunk of {count}");
                let fake = self.agent(agent);
                assert!(fake.knows.contains(&job), "{agent:?} does not know of {job:?}");
                let left = items.collect();
                let (asked_back, overtaken) = (false, false);
                fake.chunks.push(FakeChunk {
                    id: chunk,
                    job: number,
                    pool,
                    attempt,
                    first,
                    left,
                    asked_back,
                    overtaken,
                });
            }
            Action::Retract { agent, chunk } => {
                let fake = self.agent(agent);
                let waits_for_slot = fake.chunks.len() > fake.slots as usize;
                let counts: BTreeMap<u32, u32> = fake.places.keys().map(|&pool| (pool, fake.held_of(pool))).collect();
                let chunk = fake.chunks.iter_mut().find(|held| held.id == chunk).expect("it holds the chunk");
                assert!(!std::mem::replace(&mut chunk.asked_back, true), "asked twice");
                let (job, pool, splits) = (chunk.job, chunk.pool, chunk.left.len() > 1);
                assert!(!chunk.overtaken);
                let waits_for_worker = counts[&pool] > fake.places[&pool].workers;
                let job = &self.jobs[&job];
                let splits = splits && job.policy.chunksize.is_none();
                assert!(waits_for_slot || waits_for_worker || splits, "{agent:?} has nothing to spare");
                let idles = |other: &FakeAgent| other.chunks.len() < other.slots as usize && other.id != agent;
                let runs = self.agents.values().any(|other| idles(other) && self.takes(other, job));
                assert!(runs, "what was asked back can run nowhere else");
                assert!(!self.pools[&pool].paused);
            }
            Action::CancelChunk { agent, chunk } => {
                assert!(self.cancelled.insert(chunk), "cancelled twice");
                let chunks = &mut self.agent(agent).chunks;
                // Otherwise it has said all there was to say of it, and some of that was too late.
                if let Some(at) = chunks.iter().position(|held| held.id == chunk) {
                    let chunk = chunks.remove(at);
                    assert!(chunk.overtaken && self.wanted(&chunk).next().is_none(), "cancelled too early");
                }
            }
            Action::Accept { job, first, count, attempts } => {
                let items = &self.job(job).items;
                for (index, item) in items.range(first..first + count) {
                    assert_eq!(item.faults + 1, attempts, "item {index} was tried that often");
                }
                self.settle(job, first..first + count, Outcome::Done);
            }
            Action::Fail { job, first, count, attempts, cause } => {
                let lost = cause == Cause::AgentLost;
                self.settle(job, first..first + count, Outcome::Failed { attempts, lost });
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

    /// The items have had their outcome. Whoever else holds some of them was too late.
    fn settle(&mut self, job: JobId, items: std::ops::Range<u64>, outcome: Outcome) {
        self.job(job).settle(items.clone(), outcome);
        let chunks = self.agents.values_mut().flat_map(|agent| &mut agent.chunks);
        for chunk in chunks.filter(|chunk| chunk.job == job.index()) {
            chunk.overtaken |= chunk.left.iter().any(|item| items.contains(item));
        }
    }

    /// Nothing else could be done for the job, and one other agent holds all that: to no use so far.
    fn expect_copy(&mut self, to: AgentId, id: JobId, items: std::ops::Range<u64>) {
        self.copies += 1;
        let number = id.index();
        let job = &self.jobs[&number];
        assert!(job.policy.speculate && job.policy.retries > 0 && !job.must_be_handed_out());
        assert!(job.items[&items.start].faults < job.policy.retries, "tried too often");
        let holds = |chunk: &&FakeChunk| chunk.job == number && chunk.left.contains(&items.start);
        let mut holders =
            self.agents.values().flat_map(|agent| agent.chunks.iter().map(move |chunk| (agent.id, chunk)));
        let (holder, chunk) = holders.find(|(_, chunk)| holds(chunk)).expect("it is held");
        assert!(holder != to && !chunk.asked_back && self.wanted(chunk).all(|item| job.items[&item].copies == 1));
        assert!(items.clone().all(|item| chunk.left.contains(&item)), "a copy of two chunks");
    }

    fn agent_at(&mut self, place: u32) -> &mut FakeAgent {
        self.agents.get_mut(&place).expect("the agent is there")
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
            assert!(item.was_handed_out, "item {index} is nowhere");
            assert!(item.copies == 0 || self.policy.speculate, "item {index} is elsewhere");
            item.copies = 0;
            assert_eq!(item.outcome.replace(outcome), None, "item {index} has two outcomes");
            if let Outcome::Failed { attempts, .. } = outcome {
                assert_eq!(attempts, item.faults, "item {index} was tried that often");
                assert!(attempts <= self.policy.retries + 1);
            }
        }
    }

    fn hand_out(&mut self, items: std::ops::Range<u64>, attempt: u32, copied: bool) {
        assert!(!items.is_empty());
        let behind = self.items.get(&items.end).cloned();
        let fresh = !self.items[&items.start].was_handed_out;
        for index in items.clone() {
            let item = self.items.get_mut(&index).expect("only what has arrived is handed out");
            assert!(item.outcome.is_none() && item.copies == u32::from(copied), "item {index} is at too many places");
            let expected = if index == items.start { attempt } else { 1 };
            assert_eq!(item.faults + 1, expected, "item {index} is at another attempt");
            item.copies += 1;
            item.was_handed_out = true;
            item.begun += 1;
            assert!(item.begun == 1 || self.policy.retries > 0, "item {index} may run twice");
        }
        let Some(size) = self.policy.chunksize else { return };
        assert_eq!(items.start / size, (items.end - 1) / size, "{items:?} are of two chunks");
        if fresh {
            let starts_right =
                items.start % size == 0 || self.items.get(&(items.start - 1)).is_none_or(|item| item.was_handed_out);
            let full = items.end % size == 0;
            let left_out = behind.is_none() && (self.next > items.end || self.ended);
            let elsewhere = behind.is_some_and(|item| item.was_handed_out);
            let cut = items.end == self.resent_to;
            assert!(starts_right && (full || left_out || elsewhere || cut), "{items:?} is no whole chunk");
        }
    }

    /// Whether something waits for an agent and for nothing else.
    fn must_be_handed_out(&self) -> bool {
        if self.finished.is_some() {
            return false;
        }
        let waiting = |item: &FakeItem| item.outcome.is_none() && item.copies == 0;
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

impl FakeItem {
    /// An agent that held it does no more, and has not begun.
    fn has_not_begun(&mut self) {
        self.copies -= 1;
        self.begun -= 1;
    }
}

/// The runs that make up rising numbers.
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
