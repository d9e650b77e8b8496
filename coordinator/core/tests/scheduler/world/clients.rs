//! What clients do: pools, jobs and their items.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use farpool_core::{Event, Id, JobId, JobPolicy, Labels, PoolId};

use super::{FakeItem, FakeJob, FakePool, World, pool};

impl World {
    /// Opens another pool.
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
        let pool = self.pools.get_mut(&number).expect("the pool exists");
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

    /// `count` items arrive after a gap of `gap`.
    pub(crate) fn arrive(&mut self, job: u32, gap: u64, count: u64) {
        let fake = self.jobs.get_mut(&job).expect("the job exists");
        let first = fake.next + gap;
        fake.next = first + count;
        fake.items.extend((first..first + count).map(|item| (item, FakeItem::default())));
        let (id, bytes) = (fake.id, fake.item_bytes * count);
        self.send(Event::ItemsArrived { job: id, first, count, bytes });
    }

    pub(crate) fn end(&mut self, job: u32) {
        let fake = self.jobs.get_mut(&job).expect("the job exists");
        fake.ended = true;
        let id = fake.id;
        self.send(Event::InputEnded { job: id });
    }

    /// Opens a job of `count` items, all arrived.
    pub(crate) fn map(&mut self, policy: JobPolicy, count: u64) -> u32 {
        let job = self.open(policy);
        self.arrive(job, 0, count);
        self.end(job);
        job
    }

    pub(crate) fn stop_retries(&mut self, job: u32) {
        let fake = self.jobs.get_mut(&job).expect("the job exists");
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
}
