//! Adopts chunks that agents hold from before the scheduler knew of them: it was restarted, or had given the agents up.
//!
//! A queued item runs nowhere else, so an agent may resume it: its attempt continues under a new chunk id. An item that
//! is not queued has its outcome or was given to another agent, so this agent's report of it is dropped.

use crate::action::{Action, Cause};
use crate::chunk::{Hold, Items};
use crate::core::Core;
use crate::done::Done;
use crate::ids::{AgentId, ChunkId, JobId};
use crate::pool::Stage;
use crate::run::Run;

/// A chunk that an agent reports to hold from before the scheduler knew of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The agent.
    pub agent: AgentId,
    /// The job.
    pub job: JobId,
    /// The first item of the chunk as it was originally handed out.
    pub first: u64,
    /// The attempt number of that item.
    pub attempt: u32,
    /// The items that it holds.
    pub runs: Vec<Run>,
}

impl Core {
    /// The agent resumes those runs of the chunk that are entirely in the job's queue; they leave the queue. The other
    /// runs will never be reported: those of their items that are queued fail if the job runs items at most once.
    ///
    /// Returns the chunk id under which the agent reports from now on, and the attempt number of the first adopted
    /// item, from 1; all other items are at their first attempt. `None`: nothing was adopted. Other consequences are
    /// added to `actions`. The agent knows the job afterwards.
    ///
    /// The pool must have started there. Call this for chunks in the order in which the agent got them. A claim, like a
    /// report, may contain anything: what does not fit is dropped and counted.
    pub fn adopt_chunk(&mut self, held: Claim, now: u64, actions: &mut Vec<Action>) -> Option<(ChunkId, u32)> {
        let adopted = self.adopt(held, now, actions);
        self.check_in_debug();
        adopted
    }

    fn adopt(&mut self, held: Claim, now: u64, actions: &mut Vec<Action>) -> Option<(ChunkId, u32)> {
        let Claim { agent, job: id, first, attempt, mut runs } = held;
        runs.retain(|run| run.count > 0 && run.first.checked_add(run.count).is_some());
        runs.sort_unstable_by_key(|run| run.first);
        let all = if self.runs_once(id) { runs.clone() } else { Vec::new() };
        let adopted =
            if self.may_adopt(agent, id, attempt) { self.take_held((first, attempt), id, runs) } else { None };
        for run in all {
            // Adopted items are no longer queued.
            self.fail_queued_of(id, run, actions);
        }
        let Some(items) = adopted else {
            self.stale_reports += 1;
            self.finish_if_over(id, actions);
            return None;
        };
        self.jobs.get_mut(id).expect("the job was just found").agents.insert(agent);
        let attempt = items.attempt;
        Some((self.hold((agent, id), items, now), attempt))
    }

    pub(crate) fn resend_complete(&mut self, id: JobId) {
        self.jobs.get_mut(id).expect("the items' job is open").queue.all_resent();
        self.requeued(id);
    }

    /// Fails everything that is queued: it may have run at an agent that did not reconnect.
    pub(crate) fn fail_queued(&mut self, id: JobId, actions: &mut Vec<Action>) {
        let job = self.jobs.get_mut(id).expect("a job that has lost items is open");
        for run in job.queue.take_all() {
            job.outcomes += run.count;
            let Run { first, count } = run;
            actions.push(Action::Fail { job: id, first, count, attempts: 1, cause: Cause::AgentLost });
        }
        self.requeued(id);
        self.finish_if_over(id, actions);
    }

    fn fail_queued_of(&mut self, id: JobId, run: Run, actions: &mut Vec<Action>) {
        let job = self.jobs.get_mut(id).expect("the job was just found");
        for part in job.queue.queued_of(run) {
            job.queue.take_out(part);
            job.record_outcomes(part.first, part.count);
            let Run { first, count } = part;
            actions.push(Action::Fail { job: id, first, count, attempts: 1, cause: Cause::AgentLost });
        }
        self.requeued(id);
    }

    fn runs_once(&self, id: JobId) -> bool {
        self.jobs.get(id).is_some_and(|job| job.policy.retries == 0)
    }

    /// Whether the agent can hold something of the job at this attempt.
    fn may_adopt(&self, agent: AgentId, id: JobId, attempt: u32) -> bool {
        let (Some(state), Some(job)) = (self.fleet.agents.get(agent), self.jobs.get(id)) else { return false };
        let pool = self.pools.get(job.pool).expect("a job's pool is open");
        let place = pool.places.id_at(agent).and_then(|place| pool.places.get(place));
        // A place that is being given up first waits for what it holds, so this may be adopted too.
        place.is_some_and(|place| matches!(place.stage, Stage::Ready | Stage::GivenUp))
            && state.labels.include(&self.lanes.get(job.lane).expect("the job's lane exists").require)
            && (1..=job.policy.retries.saturating_add(1)).contains(&attempt)
    }

    /// Takes runs, which are sorted, out of the job's queue. Returns none if none of them is queued.
    fn take_held(&mut self, (first, attempt): (u64, u32), id: JobId, mut runs: Vec<Run>) -> Option<Items> {
        let queue = &mut self.jobs.get_mut(id).expect("the job was just found").queue;
        let (mut lowest_attempt, held) = (1, runs.len());
        let mut is_lowest = true;
        runs.retain(|&run| {
            let Some(next) = queue.next_try_of(run).filter(|&next| is_lowest || next == 1) else { return false };
            if std::mem::take(&mut is_lowest) {
                // Attempts by other agents since then count, and so does the attempt charged when this agent was given
                // up.
                lowest_attempt = if run.first == first { next.max(attempt) } else { next };
            }
            queue.take_out(run);
            true
        });
        let (lowest, highest) = (runs.first()?, runs.last()?);
        let run = Run::new(lowest.first, highest.end() - lowest.first);
        let done = Done::all_but(run, &runs);
        // Some of the chunk may not have begun and can be retracted like any other chunk, unless the agent holds items
        // that were not adopted.
        let hold = if runs.len() == held { Hold::Assigned } else { Hold::Overtaken };
        Some(Items { run, done, attempt: lowest_attempt, item_bytes: queue.item_bytes(), hold })
    }
}
