//! Handles agents' reports about the chunks they hold. Any report may be late, repeated or made up.

use crate::action::{Action, Cause};
use crate::chunk::{Chunk, Hold};
use crate::core::Core;
use crate::event::Fault;
use crate::ids::{AgentId, ChunkId, JobId};
use crate::run::Run;
use crate::run_report::RunReport;
use crate::speculate::without_twin_items;

/// The (agent, chunk, attempt) that a report claims.
type ReportedChunk = (AgentId, ChunkId, u32);

/// An attempt that failed, and may be retried.
struct FailedAttempt {
    job: JobId,
    item: u64,
    /// The number of the attempt.
    attempt: u32,
    item_bytes: u64,
    /// The chunk at another agent that still has the item, if there is one.
    copy: Option<ChunkId>,
}

impl Core {
    pub(crate) fn run_done(&mut self, claim: ReportedChunk, report: RunReport, actions: &mut Vec<Action>) {
        let RunReport { first, count, busy_ns, failed } = report;
        let Some(chunk) = self.mark(claim, first, count) else {
            for part in self.fresh_parts(claim, first, count) {
                let busy_ns = share(busy_ns, part.count, count);
                self.run_done(claim, RunReport { first: part.first, count: part.count, busy_ns, failed }, actions);
            }
            return;
        };
        let (id, run, twin) = (chunk.job, Run::new(first, count), chunk.twin());
        let (tried, item_bytes) = ((chunk.run.first, chunk.attempt), chunk.item_bytes);
        self.measure(claim.1, count, busy_ns);
        let job = self.jobs.get_mut(id).expect("a chunk's job is open");
        if failed && job.policy.retry_failed && job.policy.retries > 0 {
            self.failed(id, run, tried, (item_bytes, twin), actions);
        } else if job.tried.is_empty() && (tried.0 != first || tried.1 == 1) {
            job.record_outcomes(first, count);
            actions.push(Action::Accept { job: id, first, count, attempts: 1 });
            self.overtake_twin(twin, run, actions);
        } else {
            for (run, attempts) in job.attempts_of(run, tried) {
                self.accept(id, run, attempts, twin, actions);
            }
        }
        self.finish_chunk(claim, id, actions);
    }

    /// Accepts these results as the items' outcomes.
    fn accept(&mut self, id: JobId, run: Run, attempts: u32, twin: Option<ChunkId>, actions: &mut Vec<Action>) {
        let Run { first, count } = run;
        self.jobs.get_mut(id).expect("a chunk's job is open").record_outcomes(first, count);
        actions.push(Action::Accept { job: id, first, count, attempts });
        self.overtake_twin(twin, run, actions);
    }

    #[inline]
    fn overtake_twin(&mut self, twin: Option<ChunkId>, run: Run, actions: &mut Vec<Action>) {
        // It may have ended with earlier items of the same report.
        if let Some(twin) = twin.filter(|&twin| self.chunks.get(twin).is_some()) {
            self.overtake(twin, run, actions);
        }
    }

    /// Handles results that count as failed, of a job that retries such items. `tried`: the chunk's first item, and the
    /// attempt number it began with.
    #[cold]
    fn failed(
        &mut self,
        id: JobId,
        run: Run,
        tried: (u64, u32),
        (item_bytes, twin): (u64, Option<ChunkId>),
        actions: &mut Vec<Action>,
    ) {
        let mut retrying = Vec::new();
        for (part, attempt) in self.jobs.get(id).expect("a chunk's job is open").attempts_of(run, tried) {
            for item in part.first..part.end() {
                let copy = twin.filter(|&twin| self.is_left_of(twin, item));
                let end = FailedAttempt { job: id, item, attempt, item_bytes, copy };
                if !self.retry(&end, &mut retrying) {
                    self.accept(id, Run::new(item, 1), attempt, copy, actions);
                }
            }
        }
        actions.append(&mut retrying);
        self.requeued(id);
    }

    pub(crate) fn item_faulted(&mut self, claim: ReportedChunk, item: u64, fault: Fault, actions: &mut Vec<Action>) {
        let Some(chunk) = self.mark(claim, item, 1) else { return };
        let (id, attempt, item_bytes, twin) = (chunk.job, chunk.attempt_of(item), chunk.item_bytes, chunk.twin());
        let copy = twin.filter(|&twin| self.is_left_of(twin, item));
        let job = self.jobs.get(id).expect("a chunk's job is open");
        let attempt = job.attempt_of(item, attempt);
        let retry = match fault {
            Fault::Final => false,
            Fault::Died => true,
            Fault::Panicked => job.policy.retry_panics,
        };
        let end = FailedAttempt { job: id, item, attempt, item_bytes, copy };
        if retry && self.retry(&end, actions) {
            self.requeued(id);
        } else {
            self.jobs.get_mut(id).expect("the job was just found").record_outcomes(item, 1);
            actions.push(Action::Fail { job: id, first: item, count: 1, attempts: attempt, cause: Cause::Reported });
            if let Some(copy) = copy {
                self.overtake(copy, Run::new(item, 1), actions);
            }
        }
        self.finish_chunk(claim, id, actions);
    }

    /// Retries the item if it has attempts left. If a copy of it runs elsewhere, the copy is the next attempt. Returns
    /// false if this was the last attempt, which makes its failure the outcome.
    fn retry(&mut self, end: &FailedAttempt, actions: &mut Vec<Action>) -> bool {
        let &FailedAttempt { job: id, item, attempt, item_bytes, copy } = end;
        let job = self.jobs.get_mut(id).expect("a chunk's job is open");
        if copy.is_some() {
            job.tried.insert(item, attempt);
        } else if attempt <= job.policy.retries {
            let attempt = attempt.saturating_add(1);
            job.give_back(Run::new(item, 1), attempt, item_bytes);
            actions.push(Action::Retrying { job: id, item, attempt });
        } else {
            return false;
        }
        true
    }

    pub(crate) fn returned(&mut self, claim: ReportedChunk, first: u64, count: u64, actions: &mut Vec<Action>) {
        let (agent, id, _) = claim;
        if count > 0 {
            let Some(chunk) = self.mark(claim, first, count) else {
                for part in self.fresh_parts(claim, first, count) {
                    self.returned(claim, part.first, part.count, actions);
                }
                return;
            };
            let (job, attempt, bytes) = (chunk.job, chunk.attempt_of(first), chunk.item_bytes);
            // The job was charged for these items, but they have not run.
            let time = &mut chunk.time;
            let unspent = time.charged_ns.saturating_sub(time.spent_ns);
            let refund = share(unspent, count, chunk.done.left() + count + time.unmeasured);
            time.charged_ns -= refund;
            let twin = chunk.twin();
            let Self { jobs, chunks, .. } = self;
            let state = jobs.get_mut(job).expect("a chunk's job is open");
            for run in without_twin_items(twin, chunks, Run::new(first, count)) {
                state.give_back(run, if run.first == first { attempt } else { 1 }, bytes);
            }
            self.refund(job, refund);
            self.requeued(job);
        }
        // The chunk is gone if this answer has crossed the report of its last item. That is not an error.
        let Some(chunk) = self.chunks.get(id).filter(|chunk| chunk.agent == agent) else { return };
        if matches!(chunk.hold, Hold::Retracting { .. }) {
            self.set_hold(id, Hold::Kept);
        }
        self.drop_if_done(id, actions);
        self.retire_workers(agent, actions);
    }

    /// Marks the reported items if the chunk still has all of them; otherwise counts the report as stale.
    #[inline]
    fn mark(&mut self, (agent, id, attempt): ReportedChunk, first: u64, count: u64) -> Option<&mut Chunk> {
        let chunk = self.chunks.get_mut(id).filter(|chunk| chunk.agent == agent && chunk.attempt == attempt);
        let marked = chunk.filter(|_| count > 0).and_then(|chunk| {
            let run = chunk.run;
            chunk.done.mark(run, first, count).then_some(chunk)
        });
        match &marked {
            None => self.stale_reports += 1,
            Some(chunk) if chunk.item_bytes > 0 => {
                self.fleet.give_back_bytes(agent, chunk.item_bytes * count, &mut self.reaches);
            }
            Some(_) => {}
        }
        marked
    }

    /// Returns the valid parts of a stale report: the items that the chunk still has. The others have their outcomes
    /// from another agent, or are no longer this agent's.
    #[cold]
    fn fresh_parts(&self, (agent, id, attempt): ReportedChunk, first: u64, count: u64) -> Vec<Run> {
        let chunk = self.chunks.get(id).filter(|chunk| chunk.agent == agent && chunk.attempt == attempt);
        let Some(chunk) = chunk.filter(|chunk| chunk.overtaken() && first.checked_add(count).is_some()) else {
            return Vec::new();
        };
        chunk.left_of(Run::new(first, count)).collect()
    }

    /// Records the time that items took.
    #[inline]
    fn measure(&mut self, id: ChunkId, count: u64, busy_ns: u64) {
        let chunk = self.chunks.get_mut(id).expect("the chunk was just marked");
        let time = &mut chunk.time;
        time.unmeasured += count;
        if busy_ns == 0 {
            return;
        }
        let items = std::mem::take(&mut time.unmeasured);
        time.covered += items;
        time.spent_ns = time.spent_ns.saturating_add(busy_ns);
        let more = time.spent_ns.saturating_sub(time.charged_ns);
        time.charged_ns += more;
        let (job, covered) = (chunk.job, time.covered);
        self.charge_more(job, more);
        let pace = &mut self.jobs.get_mut(job).expect("a chunk's job is open").pace;
        pace.measured(items, busy_ns, covered, self.config.chunk_target_ns);
    }

    /// Ends the chunk, and the job, if these were the last items.
    #[inline]
    fn finish_chunk(&mut self, (agent, id, _): ReportedChunk, job: JobId, actions: &mut Vec<Action>) {
        if self.drop_if_done(id, actions) {
            self.finish_if_over(job, actions);
        }
        self.retire_workers(agent, actions);
    }

    /// Ends the chunk if nothing of it remains.
    #[inline]
    pub(crate) fn drop_if_done(&mut self, id: ChunkId, actions: &mut Vec<Action>) -> bool {
        let done = self.chunks.get(id).is_some_and(|chunk| chunk.done.left() == 0);
        if done {
            let chunk = self.drop_chunk(id);
            if chunk.time.spent_ns > 0 {
                self.refund(chunk.job, chunk.time.charged_ns.saturating_sub(chunk.time.spent_ns));
            }
            if chunk.overtaken() {
                actions.push(Action::CancelChunk { agent: chunk.agent, chunk: id });
            }
        }
        done
    }
}

/// `count / of` of `ns`.
fn share(ns: u64, count: u64, of: u64) -> u64 {
    (u128::from(ns) * u128::from(count) / u128::from(of)) as u64
}
