//! Takes in what agents hold from before the scheduler knew of it: it was started anew, or had given them up.
//!
//! An item that is queued is nowhere else, so an agent may go on with it: the attempt that it has begun goes on under a new name.
//! What is not queued has had its outcome or was given to somebody else, and what the agent makes of it counts for nothing.

use crate::action::{Action, Cause};
use crate::chunk::{Hold, Items};
use crate::core::Core;
use crate::done::Done;
use crate::ids::{AgentId, ChunkId, JobId};
use crate::pool::Stage;
use crate::run::Run;

/// What an agent says that it holds: a chunk from before the scheduler knew of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub agent: AgentId,
    /// Of which job.
    pub job: JobId,
    /// The first item of the chunk as it was handed out once.
    pub first: u64,
    /// Which try of that item this is.
    pub attempt: u32,
    /// What it holds.
    pub runs: Vec<Run>,
}

impl Core {
    /// The agent goes on with those runs of the chunk that are wholly in the job's queue, and they are queued no more. Of the
    /// others nobody hears any more what has become of them: those that are queued fail if they run at most once.
    ///
    /// Returns under which name the agent reports on the chunk from now on, and which try this is of the first item that was
    /// adopted, from 1; all other items are at their first. None: it goes on with nothing. What else follows is added to
    /// `actions`. The agent knows the job then.
    ///
    /// The pool has started there. Chunks are told of in the order in which the agent got them. Like a report, this may
    /// say anything: what does not fit is dropped and counted.
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
            // What was adopted is not queued any more.
            self.fail_queued_of(id, run, actions);
        }
        let Some(items) = adopted else {
            self.stale_reports += 1;
            self.finish_if_over(id, actions);
            return None;
        };
        self.jobs.get_mut(id).expect("it was just found").agents.insert(agent);
        let attempt = items.attempt;
        Some((self.hold((agent, id), items, now), attempt))
    }

    pub(crate) fn items_resent(&mut self, id: JobId) {
        self.jobs.get_mut(id).expect("items are of a job that is open").queue.all_resent();
        self.requeued(id);
    }

    /// Everything that is queued may have run where nobody can ask any more.
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
        let job = self.jobs.get_mut(id).expect("it was just found");
        for part in job.queue.queued_of(run) {
            job.queue.take_out(part);
            job.settled(part.first, part.count);
            let Run { first, count } = part;
            actions.push(Action::Fail { job: id, first, count, attempts: 1, cause: Cause::AgentLost });
        }
        self.requeued(id);
    }

    fn runs_once(&self, id: JobId) -> bool {
        self.jobs.get(id).is_some_and(|job| job.policy.retries == 0)
    }

    /// Whether the agent can hold something of the job, at this attempt.
    fn may_adopt(&self, agent: AgentId, id: JobId, attempt: u32) -> bool {
        let (Some(state), Some(job)) = (self.fleet.agents.get(agent), self.jobs.get(id)) else { return false };
        let pool = self.pools.get(job.pool).expect("a job's pool is open");
        let place = pool.places.id_at(agent).and_then(|place| pool.places.get(place));
        // At a place that is to be given up it is like what was there before: that waits for it.
        place.is_some_and(|place| matches!(place.stage, Stage::Ready | Stage::Leaving))
            && state.labels.include(&self.lanes.get(job.lane).expect("a job's lane is there").require)
            && (1..=job.policy.retries.saturating_add(1)).contains(&attempt)
    }

    /// Takes runs, which rise, out of the job's queue; none: nothing of them is there.
    fn take_held(&mut self, (first, attempt): (u64, u32), id: JobId, mut runs: Vec<Run>) -> Option<Items> {
        let queue = &mut self.jobs.get_mut(id).expect("it was just found").queue;
        let (mut lowest_attempt, held) = (1, runs.len());
        let mut is_lowest = true;
        runs.retain(|&run| {
            let Some(next) = queue.next_try_of(run).filter(|&next| is_lowest || next == 1) else { return false };
            if std::mem::take(&mut is_lowest) {
                // Tries that others have made since, or that it was charged when it was given up, count.
                lowest_attempt = if run.first == first { next.max(attempt) } else { next };
            }
            queue.take_out(run);
            true
        });
        let (lowest, highest) = (runs.first()?, runs.last()?);
        let run = Run::new(lowest.first, highest.end() - lowest.first);
        let done = Done::all_but(run, &runs);
        // Some of it may not have begun, and can be asked for like that of any other chunk; unless the agent holds more.
        let hold = if runs.len() == held { Hold::Assigned } else { Hold::Overtaken };
        Some(Items { run, done, attempt: lowest_attempt, item_bytes: queue.item_bytes(), hold })
    }
}
