//! Does what the core asks for.

use farpool_core::{Action, Cause, Event, JobId, PoolId};
use farpool_proto::v1::{
    Chunk, EndJob, Failure, FailureKind, ItemsDone, ItemsFailed, JobEnded, StartJob, agent_command, client_event,
};

use crate::AgentId;
use crate::convert::Batch;
use crate::coordinator::Coordinator;
use crate::outbox::Outbox;
use crate::pools::Pool;

/// What the core does not know of the report that it was just given.
pub(crate) enum Report {
    Results(Batch),
    Fault(Failure),
    Lost {
        host: String,
    },
    /// Items of a pool that was opened again, which an agent may have run that did not come back.
    NotBack,
}

impl Coordinator {
    /// Gives the core an event and does what it asks for.
    pub(crate) fn feed(&mut self, event: Event, out: &mut Outbox) {
        self.core.handle(event, self.now, &mut self.actions);
        self.follow(None, out);
    }

    /// Does what the core has asked for. `report`: what its last event was about.
    pub(crate) fn follow(&mut self, mut report: Option<Report>, out: &mut Outbox) {
        // A job's end can end its pool, which asks the core again: that round has a list of its own.
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Assign { agent, chunk, job, first, count, attempt } => {
                    let chunk = Chunk { chunk: chunk.to_bits(), job: job.to_bits(), first, attempt, segments: 0 };
                    self.assign(agent, job, chunk, count);
                }
                Action::Accept { job, first, count, attempts } => {
                    self.deliver(job, (first, count), attempts, &mut report, out);
                }
                Action::Fail { job, first, count, attempts, cause } => {
                    let failure = failure(attempts, cause, report.as_ref());
                    self.fail(job, first, count, failure, out);
                }
                Action::Retract { agent, chunk } => {
                    self.mail(agent, |agent| agent.retract.chunks.push(chunk.to_bits()));
                }
                Action::StartPool { agent, pool, workers } => self.start_pool(agent, pool, workers, out),
                Action::ResizePool { agent, pool, workers } => self.resize_pool(agent, pool, workers, out),
                Action::StopPool { agent, pool } => self.give_up_place(agent, pool, out),
                Action::StartJob { agent, job } => self.start_job(agent, job, out),
                Action::EndJob { agent, job, kill } => {
                    self.send_cancelled(agent, out);
                    out.agent(agent, agent_command::Body::EndJob(EndJob { job: job.to_bits(), kill }));
                }
                Action::JobFinished { job, cancelled } => self.job_finished(job, cancelled, out),
                Action::Retrying { job, .. } => self.report_is_used_up(job),
                Action::CancelChunk { agent, chunk } => {
                    self.mail(agent, |agent| agent.cancel.chunks.push(chunk.to_bits()));
                }
                Action::Adopt { .. } => unreachable!("chunks are adopted when an agent comes back"),
            }
        }
        self.actions = actions;
        while let Some(pool) = self.to_review.pop() {
            self.review(pool, out);
        }
    }

    fn assign(&mut self, agent: AgentId, id: JobId, mut chunk: Chunk, count: u64) {
        let Some(job) = self.jobs.get(id) else { return };
        let Some(to) = self.agents.get_mut(agent) else { return };
        if !to.has_mail() {
            self.to_flush.push(agent);
        }
        chunk.segments = job.store.cut(chunk.first, count, &mut to.assign.segments);
        to.assign.chunks.push(chunk);
    }

    fn mail(&mut self, id: AgentId, write: impl FnOnce(&mut crate::agents::Agent)) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        if !agent.has_mail() {
            self.to_flush.push(id);
        }
        write(agent);
    }

    fn deliver(
        &mut self,
        id: JobId,
        (first, count): (u64, u64),
        attempts: u32,
        report: &mut Option<Report>,
        out: &mut Outbox,
    ) {
        // Nearly always it is the whole report, which goes on as it came.
        let results = match report.take() {
            Some(Report::Results(results)) if results.count == count => results,
            Some(Report::Results(results)) => {
                let part = results.part(first, count);
                *report = Some(Report::Results(results));
                part
            }
            _ => unreachable!("results are accepted when reported"),
        };
        let Batch { data, ends, failed, .. } = results;
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.failed += if failed { count } else { 0 };
        job.rate.count(count, self.now);
        let window = self.release(id, first, count);
        let Some(job) = self.jobs.get(id) else { return };
        if let Some(client) = self.pools.get(job.pool).map(|pool| pool.client) {
            // Nearly always there was one attempt: 0 stands for that, and takes no byte.
            let attempts = if attempts > 1 { attempts } else { 0 };
            let (pool, done) = (job.pool, ItemsDone { job: job.number, first, data, ends, failed, attempts });
            out.client(client, client_event::Body::ItemsDone(done));
            window.into_iter().for_each(|window| out.client(client, window));
            self.report_led_on(pool);
        }
    }

    fn fail(&mut self, id: JobId, first: u64, count: u64, failure: Failure, out: &mut Outbox) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.failed += count;
        job.rate.count(count, self.now);
        let window = self.release(id, first, count);
        let Some(job) = self.jobs.get(id) else { return };
        let (pool, number) = (job.pool, job.number);
        let Some(client) = self.pools.get(pool).map(|pool| pool.client) else { return };
        let failed = ItemsFailed { job: number, first, failure: Some(failure), count };
        out.client(client, client_event::Body::ItemsFailed(Box::new(failed)));
        window.into_iter().for_each(|window| out.client(client, window));
        self.report_led_on(pool);
    }

    /// Lets go of items that have their outcomes. Returns what the client is to be told, if anything.
    #[inline]
    fn release(&mut self, id: JobId, first: u64, count: u64) -> Option<client_event::Body> {
        let job = self.jobs.get_mut(id)?;
        let before = job.store.cost();
        let window = job.release(first, count);
        let less = before - job.store.cost();
        if less > 0 {
            let pool = job.pool;
            self.forget_stored(pool, less);
        }
        window
    }

    /// Ends a job as if everything of it had been cancelled.
    pub(crate) fn cancel(&mut self, job: JobId, out: &mut Outbox) {
        let pool = self.jobs.get(job).and_then(|job| self.pools.get(job.pool));
        match pool.map(Pool::is_reopening) {
            Some(false) => self.feed(Event::JobCancelled { job }, out),
            // The core does not know of it.
            Some(true) => self.job_finished(job, true, out),
            None => {}
        }
    }

    fn forget_stored(&mut self, pool: PoolId, bytes: u64) {
        self.stored -= bytes;
        let client = self.pools.get(pool).map(|pool| pool.client);
        if let Some(client) = client.and_then(|client| self.clients.get_mut(client)) {
            client.stored -= bytes;
        }
    }

    fn start_job(&self, agent: AgentId, id: JobId, out: &mut Outbox) {
        let Some(job) = self.jobs.get(id) else { return };
        let start = StartJob {
            pool: job.pool.to_bits(),
            job: id.to_bits(),
            function: job.function.clone(),
            timeout_ns: job.timeout_ns,
            whole_chunks: job.whole_chunks,
            number: job.number,
        };
        out.agent(agent, agent_command::Body::StartJob(start));
    }

    pub(crate) fn job_finished(&mut self, id: JobId, cancelled: bool, out: &mut Outbox) {
        let Some(job) = self.jobs.remove(id) else { return };
        self.forget_stored(job.pool, job.store.cost());
        let cost = job.own_cost();
        self.opened -= cost;
        self.labels.give_back(&job.require);
        let pool = self.pools.get(job.pool).expect("a pool outlives its jobs");
        if let Some(client) = self.clients.get_mut(pool.client) {
            client.opened -= cost;
            client.job_ended(job.number);
            // The failure of the pool was the end of its jobs.
            if !pool.has_failed() {
                out.client(pool.client, client_event::Body::JobEnded(JobEnded { job: job.number, cancelled }));
            }
        }
        if !job.require.is_empty() {
            self.to_review.push(job.pool);
        }
        self.pool_has_less(job.pool, out);
    }
}

/// What the client is told about items that failed.
fn failure(attempts: u32, cause: Cause, report: Option<&Report>) -> Failure {
    match (cause, report) {
        (Cause::Reported, Some(Report::Fault(failure))) => Failure { attempts, ..failure.clone() },
        (_, Some(Report::Lost { host })) => Failure {
            kind: FailureKind::AgentLost.into(),
            message: format!("the agent on host {host} was lost while it had the item"),
            host: host.clone(),
            attempts,
            ..Failure::default()
        },
        (_, Some(Report::NotBack)) => Failure {
            kind: FailureKind::AgentLost.into(),
            message:
                "an agent that may have run the item did not come back after a coordinator restart, and the item must \
                      not run twice"
                    .to_owned(),
            attempts,
            ..Failure::default()
        },
        _ => unreachable!("items fail when a fault is reported or an agent is lost"),
    }
}
