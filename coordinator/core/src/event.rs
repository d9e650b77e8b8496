//! All that can happen to the scheduler.

use std::num::{NonZeroU32, NonZeroU64};

use crate::ids::{AgentId, ChunkId, JobId, PoolId};
use crate::labels::Labels;

/// Something that happened.
///
/// Events that reports of agents become (`RunDone`, `ItemFaulted`, `Returned`, `PlaceStarted`, `PlaceUnfit`,
/// `PlaceStopped`) may say anything: what does not fit is
/// dropped and counted. The others come from the caller's own books and must fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An agent is there. It gets nothing before its credit comes.
    AgentJoined {
        /// A new id.
        agent: AgentId,
        /// How many workers it runs at once; at least 1.
        slots: u32,
        /// What it has.
        labels: Labels,
    },
    /// How many chunks the agent wants to hold at once, those that run included. Replaces what it said before.
    AgentCredit {
        /// Who.
        agent: AgentId,
        /// How many.
        chunks: u32,
        /// Bytes of the items in them, as a bound that one chunk may go beyond; 0: none.
        bytes: u64,
    },
    /// Workers die at the agent before they can serve, or do so no more. What it holds it gives back, and its credit says
    /// that it wants nothing; workers of pools with a limit are allotted to others, as far as these have slots.
    AgentHealthChanged {
        /// Who.
        agent: AgentId,
        /// Whether it is so.
        unhealthy: bool,
    },
    /// The pool's workers die at the agent before they can serve, while those of other pools can. The agent gives back the pool's items,
    /// and gets no more of them until it reports again that the pool has started.
    PlaceUnhealthy {
        /// Which pool.
        pool: PoolId,
        /// Where.
        agent: AgentId,
    },
    /// The agent is leaving: it gets nothing more. What it holds it finishes or gives back.
    AgentDraining {
        /// Who.
        agent: AgentId,
    },
    /// The agent is gone with all it held. Nobody knows what of it had begun. Of a job whose items run at most once all that
    /// it held fails. Of other jobs the first unfinished item of every chunk counts an attempt, even if it had not begun:
    /// workers go through a chunk in order, and an item that takes its host down with it must not be tried for ever.
    AgentLost {
        /// Who.
        agent: AgentId,
    },
    /// A client opened a pool.
    PoolOpened {
        /// A new id.
        pool: PoolId,
        /// Workers that it may use at once; none: all there are.
        slots: Option<NonZeroU32>,
        /// Its share of the slots against other pools; at least 1.
        weight: u32,
        /// Only agents that have these run it.
        require: Labels,
        /// Agents that run it already, from before the scheduler knew of it, and with how many workers; 0: as many as they have
        /// slots. They become places as if they had been chosen for it, and those of a pool with a limit count first. What they
        /// hold is to be told before anything is scheduled. Those
        /// that are not there, or do not have what it requires, or for which the limit leaves nothing, are left out: they are not
        /// told to start it, and what they hold of it may have begun and cannot be adopted.
        held: Vec<(AgentId, u32)>,
    },
    /// Whether nothing of the pool is handed out for now. What is out goes on.
    PoolPaused {
        /// Which.
        pool: PoolId,
        /// Until this is false again.
        paused: bool,
    },
    /// The pool is gone; jobs that are left in it are cancelled.
    PoolClosed {
        /// Which.
        pool: PoolId,
    },
    /// An agent says that the pool can run there.
    PlaceStarted {
        /// Which pool.
        pool: PoolId,
        /// Where.
        agent: AgentId,
    },
    /// An agent says that the pool cannot run there. What it held of it has not run, or no more than that will be heard
    /// of.
    PlaceUnfit {
        /// Which pool.
        pool: PoolId,
        /// Where.
        agent: AgentId,
    },
    /// An agent says that it has stopped the pool, as it was asked to.
    PlaceStopped {
        /// Which pool.
        pool: PoolId,
        /// Where.
        agent: AgentId,
    },
    /// A call was made.
    JobOpened {
        /// A new id.
        job: JobId,
        /// Whose.
        pool: PoolId,
        /// What the caller asked for.
        policy: JobPolicy,
        /// Only agents that have these, beside what the pool requires, run it.
        require: Labels,
    },
    /// Items that can run. Indices of a job rise; those left out have no outcome here.
    ItemsArrived {
        /// Of which job.
        job: JobId,
        /// The first item's index.
        first: u64,
        /// How many.
        count: u64,
        /// How large they are together.
        bytes: u64,
    },
    /// What has arrived of the job is all that is left of what had arrived at a scheduler before this one. A chunk of an
    /// explicit size may lack items that have had their outcomes, so none waits for items behind these.
    ResendComplete {
        /// Of which job.
        job: JobId,
    },
    /// What is queued of the job may have run at an agent that did not come back, and its items run at most once: they fail.
    FailQueued {
        /// Which.
        job: JobId,
    },
    /// The job gets no more items.
    InputEnded {
        /// Which.
        job: JobId,
    },
    /// Items of the job that panic or count as failed from now on are not retried.
    RetriesStopped {
        /// Which.
        job: JobId,
    },
    /// The job's outcomes are not wanted any more.
    JobCancelled {
        /// Which.
        job: JobId,
    },
    /// An agent reports results.
    RunDone {
        /// Who reports.
        agent: AgentId,
        /// What it was given.
        chunk: ChunkId,
        /// With which attempt number.
        attempt: u32,
        /// The first item that is done.
        first: u64,
        /// How many are done.
        count: u64,
        /// Worker time for the items of this chunk since its last report with a time; 0: not measured in this report.
        busy_ns: u64,
        /// Whether the items count as failed. They are retried only if [`JobPolicy::retry_failed`] is set.
        failed: bool,
    },
    /// An agent reports an item that ended without a result.
    ItemFaulted {
        /// Who reports.
        agent: AgentId,
        /// What it was given.
        chunk: ChunkId,
        /// With which attempt number.
        attempt: u32,
        /// Which item.
        item: u64,
        /// Why.
        fault: Fault,
    },
    /// An agent gives items back that have not begun; none is an answer to a retraction too.
    Returned {
        /// Who.
        agent: AgentId,
        /// What it was given.
        chunk: ChunkId,
        /// With which attempt number.
        attempt: u32,
        /// The first item given back.
        first: u64,
        /// How many.
        count: u64,
    },
}

/// Why an item ended without a result, as far as the scheduler cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another try would end the same, or nobody asked for one: a timeout, a payload that cannot be read.
    Final,
    /// The worker died under it: tried again while [`JobPolicy::retries`] lasts.
    Died,
    /// The function panicked: tried again only if [`JobPolicy::retry_panics`] says so.
    Panicked,
}

/// What a call asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobPolicy {
    /// Items a chunk, kept exactly; none: adapted to measured item times.
    pub chunksize: Option<NonZeroU64>,
    /// How often an item may be tried again. 0: at most once.
    pub retries: u32,
    /// Whether an item that panics is retried.
    pub retry_panics: bool,
    /// Whether an item that counts as failed is retried.
    pub retry_failed: bool,
    /// Of a pool's jobs that have something to run, those with the highest go first.
    pub priority: i32,
    /// Whether slots that idle may run a second copy of a chunk that takes far longer than others of the job; the first
    /// outcome of each item counts. Never while `retries` is 0.
    pub speculate: bool,
}
