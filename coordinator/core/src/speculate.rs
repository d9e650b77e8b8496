//! Runs second copies of chunks that take far longer than others of their job, on slots that would be idle.
//!
//! A slow host holds up a job whose other items are all done. If the job allows it, an idle slot at another agent runs
//! the late items once more. The first outcome of each item counts. The two chunks are twins while both exist: an
//! unfinished item is left in one of them or in both, and nowhere else. When one finishes an item, it is marked in the
//! other too; when one loses an item, the other still has it. If an attempt fails while the other copy runs, it counts,
//! and the other copy is the next attempt.

use std::collections::HashMap;
use std::iter::once;

use crate::action::Action;
use crate::chunk::{Chunk, Hold, Items};
use crate::core::Core;
use crate::done::Done;
use crate::ids::{AgentId, ChunkId, JobId};
use crate::job::Job;
use crate::run::Run;
use crate::slab::Slab;

/// A chunk straggles when it has been at its agent this many times longer than the most it should take: its items as
/// long as the average, and one as long as the slowest so far. A lower factor would copy chunks that are merely long:
/// jobs have items of all sizes, and usually the long ones run last.
const STRAGGLE_FACTOR: u64 = 2;

/// And when it has taken this many chunk targets in addition. Waiting a tenth of a second for a busy host is not
/// unusual, and copying a chunk that ends in a moment gains nothing.
const STRAGGLE_FLOOR_TARGETS: u64 = 100;

impl Core {
    /// Whether an idle slot elsewhere should run a copy of the chunk. A slot is idle only if nothing queued can run on
    /// it.
    pub(crate) fn straggles(&self, chunk: &Chunk, now: u64) -> bool {
        let waits = matches!(chunk.hold, Hold::Retracting { .. } | Hold::Doubled { .. });
        let floor = STRAGGLE_FLOOR_TARGETS.saturating_mul(self.config.chunk_target_ns);
        let Some(beyond) = now.saturating_sub(chunk.time.assigned_at).checked_sub(floor).filter(|_| !waits) else {
            return false;
        };
        let job = self.jobs.get(chunk.job).expect("a chunk's job is open");
        let may_copy = job.speculates()
            && first_try_left(chunk, job) <= job.policy.retries
            && !self.pools.get(job.pool).expect("a job's pool is open").paused;
        may_copy && {
            let rest = job.pace.expected_at_most_ns(chunk.done.left());
            let all = rest.map(|rest| rest.saturating_add(chunk.time.spent_ns));
            all.is_some_and(|all| beyond > all.saturating_mul(STRAGGLE_FACTOR))
        }
    }

    /// Gives another agent, which has room for it, a copy of the unfinished items of a chunk: up to the first one that
    /// is finished or was tried before.
    pub(crate) fn copy(&mut self, id: ChunkId, to: AgentId, now: u64, actions: &mut Vec<Action>) {
        let chunk = self.chunks.get(id).expect("the copied chunk exists");
        let (job_id, overtaken) = (chunk.job, chunk.overtaken());
        let job = self.jobs.get_mut(job_id).expect("a chunk's job is open");
        let hole = first_left(chunk);
        let tried_before = job.tried.range(hole.first + 1..hole.end()).next();
        let run = Run::new(hole.first, tried_before.map_or(hole.end(), |(&item, _)| item) - hole.first);
        let attempt = first_try_left(chunk, job);
        let (done, item_bytes) = (Done::none_of(run), chunk.item_bytes);
        let items = Items { run, done, attempt, item_bytes, hold: Hold::Assigned };
        if job.agents.insert(to) {
            actions.push(Action::StartJob { agent: to, job: job_id });
        }
        let copy = self.hold((to, job_id), items, now);
        self.set_hold(id, Hold::Doubled { twin: copy, overtaken });
        self.set_hold(copy, Hold::Doubled { twin: id, overtaken: false });
        let Run { first, count } = run;
        actions.push(Action::Assign { agent: to, chunk: copy, job: job_id, first, count, attempt });
    }

    /// The other copy delivered the outcomes of these items. If nothing else of the chunk remains, it is cancelled.
    #[cold]
    pub(crate) fn overtake(&mut self, id: ChunkId, run: Run, actions: &mut Vec<Action>) {
        let chunk = self.chunks.get_mut(id).expect("the chunk's twin exists");
        let marked = chunk.left_of(run).collect::<Vec<_>>();
        let mut bytes = 0;
        for run in marked {
            chunk.done.mark(chunk.run, run.first, run.count);
            bytes += chunk.item_bytes * run.count;
            if let Hold::Doubled { overtaken, .. } = &mut chunk.hold {
                *overtaken = true;
            }
        }
        let agent = chunk.agent;
        self.fleet.give_back_bytes(agent, bytes, &mut self.reaches);
        self.drop_if_done(id, actions);
        self.retire_workers(agent, actions);
    }

    /// The other copy is gone.
    #[cold]
    pub(crate) fn unlink_twin(&mut self, id: ChunkId) {
        let chunk = self.chunks.get_mut(id).expect("the chunk's twin exists");
        chunk.hold = if chunk.overtaken() { Hold::Overtaken } else { Hold::Kept };
    }

    /// Whether the chunk has not finished the item.
    pub(crate) fn is_left_of(&self, id: ChunkId, item: u64) -> bool {
        self.chunks.get(id).is_some_and(|chunk| chunk.left_of(Run::new(item, 1)).next().is_some())
    }

    /// Checks that twins refer to each other, and counts the items of each job that two chunks have not finished.
    pub(crate) fn check_twins(&self) -> HashMap<JobId, u64> {
        let mut twice = HashMap::new();
        for (id, chunk) in self.chunks.iter() {
            let Some(twin) = chunk.twin() else { continue };
            let other = self.chunks.get(twin).expect("the chunk's twin exists");
            assert_eq!((other.twin(), other.job), (Some(id), chunk.job), "{twin:?} is not the twin of {id:?}");
            assert_ne!(other.agent, chunk.agent, "two copies at one agent");
            assert!(self.jobs.get(chunk.job).is_some_and(Job::speculates), "a copy of a job that does not speculate");
            let common = |run| other.left_of(run).map(|run| run.count).sum::<u64>();
            if id < twin {
                *twice.entry(chunk.job).or_default() += chunk.done.holes(chunk.run).map(common).sum::<u64>();
            }
        }
        assert_eq!(self.speculating, self.jobs.iter().filter(|(_, job)| job.speculates()).count());
        twice
    }
}

/// Returns the parts of a run that this chunk does not hold unfinished: all of the run if there is no chunk.
pub(crate) fn without_twin_items(
    chunk: Option<ChunkId>,
    chunks: &Slab<ChunkId, Chunk>,
    run: Run,
) -> impl Iterator<Item = Run> {
    let left = move || chunk.and_then(|id| chunks.get(id)).into_iter().flat_map(move |chunk| chunk.left_of(run));
    let starts = once(run.first).chain(left().map(Run::end));
    let ends = left().map(|run| run.first).chain(once(run.end()));
    starts.zip(ends).map(|(start, end)| Run::new(start, end - start)).filter(|part| part.count > 0)
}

/// Returns the first run of unfinished items of a chunk.
fn first_left(chunk: &Chunk) -> Run {
    chunk.done.holes(chunk.run).next().expect("an existing chunk has unfinished items")
}

/// Returns the attempt number of a chunk's first unfinished item.
fn first_try_left(chunk: &Chunk, job: &Job) -> u32 {
    let first = first_left(chunk).first;
    job.attempt_of(first, chunk.attempt_of(first))
}
