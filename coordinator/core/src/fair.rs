//! Which job goes next: weighted fair queueing by slot time.
//!
//! Each job has used some slot time, and the one that has used least goes next. What a chunk is expected to take is
//! charged when it is handed out and put right when it has been measured. A job that has had nothing to run for a while,
//! a new one above all, starts where the jobs that are being served stand: it neither waits until it is their turn again nor
//! makes up for the time it was away.
//!
//! A pool's share is split among its jobs that have something to run, by charging each as many times as there are.

use crate::heap::IndexedHeap;
use crate::ids::{Id, JobId, PoolId};
use crate::job::{Job, Pool};
use crate::slab::Table;

/// All jobs and pools, and the order of the jobs that have something to run.
#[derive(Default)]
pub(crate) struct Jobs {
    pub(crate) jobs: Table<JobId, Job>,
    pub(crate) pools: Table<PoolId, Pool>,
    ready: IndexedHeap<u128>,
    // Where the job that was served last stood.
    now: u128,
}

impl Jobs {
    /// The job to be served next.
    #[inline]
    pub(crate) fn first(&self) -> Option<JobId> {
        self.ready.first().and_then(|(index, _)| self.jobs.id_at(index))
    }

    /// Brings the order in line after the job's queue changed.
    #[inline]
    pub(crate) fn requeued(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let was_ready = self.ready.key(id.index()).is_some();
        let pool = self.pools.get_mut(job.pool).expect("a job's pool is open");
        let is_ready = !pool.paused && job.queue.next(job.policy.chunksize).is_some();
        if was_ready == is_ready {
            return;
        }
        if is_ready {
            pool.ready_jobs += 1;
            job.used = job.used.max(self.now);
            self.ready.set(id.index(), Some(job.used));
        } else {
            pool.ready_jobs -= 1;
            self.ready.set(id.index(), None);
        }
    }

    /// The job was served and is expected to use this slot time.
    #[inline]
    pub(crate) fn charge(&mut self, id: JobId, ns: u64) {
        if let Some(job) = self.jobs.get(id) {
            self.now = self.now.max(job.used);
        }
        self.correct(id, |used, cost| used + cost, ns);
    }

    /// The job used less slot time than it was charged.
    pub(crate) fn refund(&mut self, id: JobId, ns: u64) {
        self.correct(id, u128::saturating_sub, ns);
    }

    /// The job used more slot time than it was charged.
    pub(crate) fn charge_more(&mut self, id: JobId, ns: u64) {
        self.correct(id, |used, cost| used + cost, ns);
    }

    /// Takes the job out.
    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.take(id)?;
        if self.ready.key(id.index()).is_some() {
            self.ready.set(id.index(), None);
            self.pools.get_mut(job.pool).expect("a job's pool is open").ready_jobs -= 1;
        }
        Some(job)
    }

    #[inline]
    fn correct(&mut self, id: JobId, change: impl FnOnce(u128, u128) -> u128, ns: u64) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let pool = self.pools.get(job.pool).expect("a job's pool is open");
        let cost = u128::from(ns) * u128::from(pool.ready_jobs.max(1));
        job.used = change(job.used, if pool.weight == 1 { cost } else { cost / u128::from(pool.weight) });
        if self.ready.key(id.index()).is_some() {
            self.ready.set(id.index(), Some(job.used));
        }
    }

    /// That exactly the jobs with something to run are in the order, where they belong.
    pub(crate) fn check(&self) {
        self.ready.check();
        for (id, job) in self.jobs.iter() {
            let paused = self.pools.get(job.pool).is_some_and(|pool| pool.paused);
            let ready = job.queue.next(job.policy.chunksize).filter(|_| !paused).map(|_| job.used);
            assert_eq!(self.ready.key(id.index()), ready, "{id:?} is misplaced");
        }
        assert!(self.ready.len() <= self.jobs.len());
        for (pool, state) in self.pools.iter() {
            let jobs = self.jobs.iter().filter(|(_, job)| job.pool == pool);
            let ready = jobs.filter(|(id, _)| self.ready.key(id.index()).is_some()).count();
            assert_eq!(state.ready_jobs as usize, ready, "{pool:?} miscounts its jobs");
        }
    }
}
