//! Hands chunks out.

use crate::action::Action;
use crate::chunk::{Chunk, Hold, Time};
use crate::core::Core;
use crate::done::Done;
use crate::held::Links;
use crate::ids::{AgentId, JobId};
use crate::run::Run;

impl Core {
    /// Gives chunks to agents with credit, the least loaded first, until one or the other is used up.
    pub(crate) fn hand_out(&mut self, now: u64, actions: &mut Vec<Action>) {
        self.fleet.refresh();
        while let (Some(agent), Some(job)) = (self.fleet.roomiest(), self.jobs.first()) {
            self.assign(agent, job, now, actions);
            self.fleet.refresh();
        }
    }

    #[inline]
    fn assign(&mut self, agent: AgentId, id: JobId, now: u64, actions: &mut Vec<Action>) {
        let job = self.jobs.jobs.get_mut(id).expect("a job in the order is open");
        let piece = job.queue.next(job.policy.chunksize).expect("a job in the order has something to run");
        let count = if job.policy.chunksize.is_some() {
            piece.run.count
        } else {
            let pool = self.jobs.pools.get(job.pool).expect("a job's pool is open");
            let slots = pool.slots.map_or(u64::MAX, |slots| slots.get().into()).min(self.fleet.slots());
            job.pace.size(job.queue.items(), slots).min(piece.run.count)
        };
        job.queue.take(count);
        let (run, attempt) = (Run::new(piece.run.first, count), piece.attempt);
        // As long as nothing is known, each chunk counts as the target that it is meant to have.
        let charged_ns = job.pace.expected_ns(count).unwrap_or(self.config.chunk_target_ns);
        let knows_job = !job.agents.insert(agent);
        self.jobs.charge(id, charged_ns);
        self.jobs.requeued(id);

        let chunk = self.chunks.insert(Chunk {
            job: id,
            agent,
            run,
            attempt,
            hold: Hold::Assigned,
            done: Done::none_of(run),
            time: Time { assigned_at: now, charged_ns, ..Time::default() },
            links: Links::default(),
        });
        self.fleet.hold(agent, chunk, &mut self.chunks);
        if !knows_job {
            actions.push(Action::StartJob { agent, job: id });
        }
        actions.push(Action::Assign { agent, chunk, job: id, first: run.first, count, attempt });
    }
}
