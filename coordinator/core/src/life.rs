//! Pools, jobs and agents come and go.

use std::num::NonZeroU32;

use crate::action::{Action, Cause};
use crate::chunk::Chunk;
use crate::core::Core;
use crate::event::JobPolicy;
use crate::ids::{AgentId, ChunkId, JobId, PoolId};
use crate::job::{Job, Pool};
use crate::run::Run;

impl Core {
    pub(crate) fn open_pool(&mut self, id: PoolId, slots: Option<NonZeroU32>, weight: u32) {
        assert!(weight > 0, "a pool without weight");
        self.jobs.pools.put(id, Pool { slots, weight, paused: false, ready_jobs: 0 });
    }

    pub(crate) fn pause_pool(&mut self, id: PoolId, paused: bool) {
        self.jobs.pools.get_mut(id).expect("a pool that is paused is open").paused = paused;
        let of_pool: Vec<JobId> = self.jobs.jobs.iter().filter(|(_, job)| job.pool == id).map(|(id, _)| id).collect();
        of_pool.into_iter().for_each(|job| self.jobs.requeued(job));
    }

    pub(crate) fn close_pool(&mut self, id: PoolId, actions: &mut Vec<Action>) {
        let left: Vec<JobId> = self.jobs.jobs.iter().filter(|(_, job)| job.pool == id).map(|(id, _)| id).collect();
        for job in left {
            self.cancel_job(job, actions);
        }
        self.jobs.pools.take(id).expect("a pool that is closed was open");
    }

    pub(crate) fn open_job(&mut self, id: JobId, pool: PoolId, policy: JobPolicy) {
        assert!(self.jobs.pools.get(pool).is_some(), "a job of {pool:?}, which is not open");
        self.jobs.jobs.put(id, Job::new(pool, policy));
    }

    pub(crate) fn items_arrived(&mut self, id: JobId, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let job = self.jobs.jobs.get_mut(id).expect("items are of a job that is open");
        job.queue.arrive(Run::new(first, count));
        job.arrived += count;
        self.jobs.requeued(id);
    }

    pub(crate) fn input_ended(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let job = self.jobs.jobs.get_mut(id).expect("the input that ends is of a job that is open");
        job.queue.end();
        // What was waiting for the rest of its chunk need not wait any more.
        self.jobs.requeued(id);
        self.finish_if_over(id, actions);
    }

    pub(crate) fn cancel_job(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let job = self.jobs.remove(id).expect("a job that is cancelled is open");
        for index in job.agents.indices() {
            let Some(agent) = self.fleet.agents.id_at(index) else { continue };
            let held = self.fleet.agents.get(agent).expect("it was just found").held.iter(&self.chunks);
            let of_job = |chunk: &ChunkId| self.chunks.get(*chunk).is_some_and(|chunk| chunk.job == id);
            for chunk in held.filter(of_job).collect::<Vec<_>>() {
                self.drop_chunk(chunk);
            }
        }
        self.end_at_agents(id, &job, true, actions);
        actions.push(Action::JobFinished { job: id, cancelled: true });
    }

    pub(crate) fn finish_if_over(&mut self, id: JobId, actions: &mut Vec<Action>) {
        if !self.jobs.jobs.get(id).is_some_and(Job::is_over) {
            return;
        }
        let Some(job) = self.jobs.remove(id) else { return };
        self.end_at_agents(id, &job, false, actions);
        actions.push(Action::JobFinished { job: id, cancelled: false });
    }

    pub(crate) fn lose_agent(&mut self, id: AgentId, actions: &mut Vec<Action>) {
        let agent = self.fleet.agents.get(id).expect("an agent that is lost was there");
        let held: Vec<ChunkId> = agent.held.iter(&self.chunks).collect();
        let mut touched = Vec::new();
        for chunk in held {
            let chunk = self.drop_chunk(chunk);
            self.recover(&chunk, actions);
            touched.push(chunk.job);
        }
        for (_, job) in self.jobs.jobs.iter_mut() {
            job.agents.remove(id);
        }
        self.fleet.leave(id);
        // Only now, when all its chunks are accounted for, can a job be over.
        for job in touched {
            self.finish_if_over(job, actions);
        }
    }

    /// Takes the chunk from its agent.
    pub(crate) fn drop_chunk(&mut self, id: ChunkId) -> Chunk {
        let agent = self.chunks.get(id).expect("a chunk that is held exists").agent;
        self.fleet.release(agent, id, &mut self.chunks);
        self.chunks.remove(id).expect("it was just found")
    }

    /// Decides what becomes of the items of a chunk whose agent is gone. Nobody knows which of them had begun.
    fn recover(&mut self, chunk: &Chunk, actions: &mut Vec<Action>) {
        let job = self.jobs.jobs.get_mut(chunk.job).expect("a chunk's job is open");
        let id = chunk.job;
        let fail = |job: &mut Job, first, count, attempts| {
            job.outcomes += count;
            Action::Fail { job: id, first, count, attempts, cause: Cause::AgentLost }
        };
        // Workers report in order, so of the items without an outcome the first is the one that was running.
        let mut running = true;
        for hole in chunk.done.holes(chunk.run) {
            let attempt = chunk.attempt_of(hole.first);
            if job.policy.retries == 0 {
                // At most once: any of them may have run without its report having come through.
                actions.push(fail(job, hole.first, hole.count, attempt));
            } else if !std::mem::take(&mut running) {
                job.queue.give_back(hole, attempt);
            } else if attempt <= job.policy.retries {
                job.queue.give_back(hole, attempt + 1);
                actions.push(Action::Retrying { job: id, item: hole.first, attempt: attempt + 1 });
            } else {
                actions.push(fail(job, hole.first, 1, attempt));
                if hole.count > 1 {
                    job.queue.give_back(Run::new(hole.first + 1, hole.count - 1), 1);
                }
            }
        }
        self.jobs.requeued(id);
    }

    fn end_at_agents(&self, id: JobId, job: &Job, kill: bool, actions: &mut Vec<Action>) {
        let agents = job.agents.indices().filter_map(|index| self.fleet.agents.id_at(index));
        actions.extend(agents.map(|agent| Action::EndJob { agent, job: id, kill }));
    }
}
