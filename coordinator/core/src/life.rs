//! Opens and ends jobs, and takes chunks from agents.

use crate::action::{Action, Cause};
use crate::chunk::{Chunk, Hold};
use crate::core::Core;
use crate::event::JobPolicy;
use crate::ids::{AgentId, ChunkId, Id, JobId, PoolId};
use crate::job::Job;
use crate::labels::Labels;
use crate::run::Run;
use crate::speculate::without_twin_items;

impl Core {
    pub(crate) fn open_job(
        &mut self,
        id: JobId,
        pool: PoolId,
        policy: JobPolicy,
        require: &Labels,
        actions: &mut Vec<Action>,
    ) {
        let lane = self.lane_for(pool, require);
        self.lanes.get_mut(lane).expect("the lane was just found").open_jobs += 1;
        let job = Job::new(pool, lane, policy, self.opened_jobs);
        self.opened_jobs = self.opened_jobs.wrapping_add(1);
        self.speculating += usize::from(job.speculates());
        self.jobs.put(id, job);
        if !require.is_empty() {
            self.allot(pool, actions);
        }
    }

    pub(crate) fn items_arrived(&mut self, id: JobId, first: u64, count: u64, bytes: u64) {
        if count == 0 {
            return;
        }
        let job = self.jobs.get_mut(id).expect("the items' job is open");
        job.queue.arrive(Run::new(first, count), bytes);
        job.arrived += count;
        self.requeued(id);
    }

    pub(crate) fn input_ended(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let job = self.jobs.get_mut(id).expect("the job whose input ends is open");
        job.queue.end();
        // Items that waited for the rest of their chunk no longer have to.
        self.requeued(id);
        self.finish_if_over(id, actions);
    }

    /// Items that are already queued for another attempt still get it.
    pub(crate) fn stop_retries(&mut self, id: JobId) {
        let job = self.jobs.get_mut(id).expect("a job whose retries stop is open");
        (job.policy.retry_panics, job.policy.retry_failed) = (false, false);
    }

    pub(crate) fn cancel_job(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let job = self.jobs.get(id).expect("the cancelled job is open");
        let agents: Vec<AgentId> = job.agents.indices().filter_map(|index| self.fleet.agents.id_at(index)).collect();
        for agent in agents {
            for chunk in self.chunks_of(agent, |chunk| chunk.job == id) {
                self.drop_chunk(chunk);
            }
            self.retire_workers(agent, actions);
        }
        let job = self.remove_job(id).expect("the job was just found");
        self.end_at_agents(id, &job, true, actions);
        actions.push(Action::JobFinished { job: id, cancelled: true });
        self.allot_if_many_lanes(job.pool, actions);
    }

    pub(crate) fn finish_if_over(&mut self, id: JobId, actions: &mut Vec<Action>) {
        if !self.jobs.get(id).is_some_and(Job::is_over) {
            return;
        }
        let Some(job) = self.remove_job(id) else { return };
        self.end_at_agents(id, &job, false, actions);
        actions.push(Action::JobFinished { job: id, cancelled: false });
        self.allot_if_many_lanes(job.pool, actions);
    }

    /// Returns the chunks of an agent that `selects` selects.
    pub(crate) fn chunks_of(&self, agent: AgentId, selects: impl Fn(&Chunk) -> bool) -> Vec<ChunkId> {
        let Some(agent) = self.fleet.agents.get(agent) else { return Vec::new() };
        let held = agent.held.iter(&self.chunks);
        held.filter(|&id| self.chunks.get(id).is_some_and(&selects)).collect()
    }

    /// Takes the chunk from its agent.
    pub(crate) fn drop_chunk(&mut self, id: ChunkId) -> Chunk {
        let chunk = self.chunks.get(id).expect("a held chunk exists");
        match chunk.hold {
            Hold::Assigned | Hold::Kept | Hold::Overtaken => {}
            Hold::Retracting { .. } => self.set_hold(id, Hold::Kept),
            Hold::Doubled { twin, .. } => self.unlink_twin(twin),
        }
        self.fleet.release(id, &mut self.chunks, &mut self.reaches);
        let chunk = self.chunks.remove(id).expect("the chunk was just found");
        let pool =
            self.jobs.get(chunk.job).and_then(|job| self.pools.get_mut(job.pool)).expect("the chunk was just found");
        pool.places.get_mut(chunk.place).expect("the chunk's place exists").count -= 1;
        chunk
    }

    /// Decides what happens to the items of a chunk whose agent is lost. It is unknown which of them had begun. Items
    /// that another agent has a copy of just continue there.
    pub(crate) fn recover(&mut self, chunk: &Chunk, actions: &mut Vec<Action>) {
        let (id, item_bytes) = (chunk.job, chunk.item_bytes);
        let Self { jobs, chunks, .. } = self;
        let job = jobs.get_mut(id).expect("a chunk's job is open");
        let fail = |job: &mut Job, first, count, attempts| {
            job.record_outcomes(first, count);
            Action::Fail { job: id, first, count, attempts, cause: Cause::AgentLost }
        };
        // Workers report in order, so the first item without an outcome is assumed to have been running.
        let running = chunk.done.holes(chunk.run).next().map(|hole| hole.first);
        let left = chunk.done.holes(chunk.run).flat_map(|hole| without_twin_items(chunk.twin(), chunks, hole));
        for run in left {
            let attempt = job.attempt_of(run.first, chunk.attempt_of(run.first));
            if job.policy.retries == 0 {
                // At most once: any of them may have run although no report arrived.
                actions.push(fail(job, run.first, run.count, attempt));
            } else if Some(run.first) != running {
                job.give_back(run, attempt, item_bytes);
            } else if attempt <= job.policy.retries {
                let attempt = attempt.saturating_add(1);
                job.give_back(run, attempt, item_bytes);
                actions.push(Action::Retrying { job: id, item: run.first, attempt });
            } else {
                actions.push(fail(job, run.first, 1, attempt));
                if run.count > 1 {
                    job.give_back(Run::new(run.first + 1, run.count - 1), 1, item_bytes);
                }
            }
        }
        self.requeued(id);
    }

    /// Queues the items of a chunk again, because its agent will not run them. This counts no attempt.
    pub(crate) fn requeue(&mut self, chunk: &Chunk) {
        let Self { jobs, chunks, .. } = self;
        let job = jobs.get_mut(chunk.job).expect("a chunk's job is open");
        for run in chunk.done.holes(chunk.run).flat_map(|hole| without_twin_items(chunk.twin(), chunks, hole)) {
            job.give_back(run, chunk.attempt_of(run.first), chunk.item_bytes);
        }
        self.requeued(chunk.job);
    }

    fn remove_job(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.take(id)?;
        self.speculating -= usize::from(job.speculates());
        let lane = self.lanes.get_mut(job.lane).expect("the job's lane exists");
        lane.open_jobs -= 1;
        if lane.ready.key(id.index(), &self.turns).is_some() {
            lane.ready.set(id.index(), None, &mut self.turns);
            self.lane_changed(job.lane);
        }
        Some(job)
    }

    fn end_at_agents(&self, id: JobId, job: &Job, kill: bool, actions: &mut Vec<Action>) {
        let agents = job.agents.indices().filter_map(|index| self.fleet.agents.id_at(index));
        actions.extend(agents.map(|agent| Action::EndJob { agent, job: id, kill }));
    }
}
