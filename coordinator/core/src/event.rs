//! Everything that can happen to the scheduler.

use std::num::{NonZeroU32, NonZeroU64};

use crate::ids::{AgentId, ChunkId, JobId, PoolId};
use crate::labels::Labels;

/// Something that happened.
///
/// Events made from agents' reports (`RunDone`, `ItemFaulted`, `Returned`, `PlaceStarted`, `PlaceUnhealthy`,
/// `PlaceUnfit`, `PlaceStopped`) may contain anything: what does not fit is dropped and counted. The others come from
/// the caller's own state and must fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An agent joined. It gets nothing before its credit arrives.
    AgentJoined {
        /// A new id.
        agent: AgentId,
        /// How many workers it runs at once; at least 1.
        slots: u32,
        /// Its labels.
        labels: Labels,
    },
    /// How many chunks the agent wants to hold at once, including those that run. Replaces its previous credit.
    AgentCredit {
        /// The agent.
        agent: AgentId,
        /// How many.
        chunks: u32,
        /// Bytes of the items in them, a bound that one chunk may exceed; 0: none.
        bytes: u64,
    },
    /// Workers at the agent now die before they can serve, or no longer do. An unhealthy agent gives back what it
    /// holds, and its credit says that it wants nothing. Workers of pools with a limit are allotted to other agents, as
    /// far as these have slots.
    AgentHealthChanged {
        /// The agent.
        agent: AgentId,
        /// Whether workers die there.
        unhealthy: bool,
    },
    /// The pool's workers die at the agent before they can serve, while those of other pools can. The agent gives back
    /// the pool's items, and gets no more of them until it reports again that the pool has started.
    PlaceUnhealthy {
        /// The pool.
        pool: PoolId,
        /// The agent.
        agent: AgentId,
    },
    /// The agent is leaving: it gets nothing more. It finishes or gives back what it holds.
    AgentDraining {
        /// The agent.
        agent: AgentId,
    },
    /// The agent is lost with everything it held. It is unknown which items had begun. If a job runs items at most
    /// once, all its items there fail. For other jobs, the first unfinished item of every chunk counts an attempt, even
    /// if it had not begun: workers run a chunk in order, and an item that takes its host down must not be tried for
    /// ever.
    AgentLost {
        /// The agent.
        agent: AgentId,
    },
    /// A client opened a pool.
    PoolOpened {
        /// A new id.
        pool: PoolId,
        /// Workers that it may use at once; `None`: all there are.
        slots: Option<NonZeroU32>,
        /// Its share of the slots against other pools; at least 1.
        weight: u32,
        /// Only agents that have these labels run it.
        require: Labels,
        /// Agents that already ran it before the scheduler knew of it, and with how many workers; 0: as many as they
        /// have slots. They become places as if they had been chosen, and count first against a limit. Have the core
        /// adopt what they hold before anything is scheduled. Agents that do not exist, lack the required labels, or
        /// exceed the limit are left out. They are not told to start the pool, and what they hold of it may have begun
        /// and cannot be adopted.
        held: Vec<(AgentId, u32)>,
    },
    /// Pauses or unpauses a pool. Nothing of a paused pool is handed out; chunks at agents continue.
    PoolPaused {
        /// The pool.
        pool: PoolId,
        /// Whether it is paused from now on.
        paused: bool,
    },
    /// The pool is closed; its remaining jobs are cancelled.
    PoolClosed {
        /// The pool.
        pool: PoolId,
    },
    /// An agent reports that the pool can run there.
    PlaceStarted {
        /// The pool.
        pool: PoolId,
        /// The agent.
        agent: AgentId,
    },
    /// An agent reports that the pool cannot run there. What it held of the pool has not run, or will no longer be
    /// reported.
    PlaceUnfit {
        /// The pool.
        pool: PoolId,
        /// The agent.
        agent: AgentId,
    },
    /// An agent reports that it has stopped the pool, as it was asked to.
    PlaceStopped {
        /// The pool.
        pool: PoolId,
        /// The agent.
        agent: AgentId,
    },
    /// A client opened a job.
    JobOpened {
        /// A new id.
        job: JobId,
        /// The pool.
        pool: PoolId,
        /// The settings of the job.
        policy: JobPolicy,
        /// Only agents that have these labels, in addition to those the pool requires, run it.
        require: Labels,
    },
    /// Items that can run. Indices of a job rise; skipped indices get no outcome here.
    ItemsArrived {
        /// The job.
        job: JobId,
        /// The first item's index.
        first: u64,
        /// How many.
        count: u64,
        /// How large they are together.
        bytes: u64,
    },
    /// All items that had arrived at a previous scheduler and are unfinished have arrived here. A chunk of an explicit
    /// size may lack items that have their outcomes, so no chunk waits for items after these.
    ResendComplete {
        /// The job.
        job: JobId,
    },
    /// Fail what is queued of the job. It may have run at an agent that did not reconnect, and its items run at most
    /// once.
    FailQueued {
        /// The job.
        job: JobId,
    },
    /// The job gets no more items.
    InputEnded {
        /// The job.
        job: JobId,
    },
    /// From now on, items of the job that panic or count as failed are not retried.
    RetriesStopped {
        /// The job.
        job: JobId,
    },
    /// The job's outcomes are no longer wanted.
    JobCancelled {
        /// The job.
        job: JobId,
    },
    /// An agent reports results.
    RunDone {
        /// The agent that reports.
        agent: AgentId,
        /// The chunk that it was given.
        chunk: ChunkId,
        /// The attempt number that it reports.
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
        /// The agent that reports.
        agent: AgentId,
        /// The chunk that it was given.
        chunk: ChunkId,
        /// The attempt number that it reports.
        attempt: u32,
        /// The item.
        item: u64,
        /// Why.
        fault: Fault,
    },
    /// An agent gives back items that have not begun. A `count` of 0 answers a retraction too.
    Returned {
        /// The agent.
        agent: AgentId,
        /// The chunk that it was given.
        chunk: ChunkId,
        /// The attempt number that it reports.
        attempt: u32,
        /// The first item given back.
        first: u64,
        /// How many.
        count: u64,
    },
}

/// Why an item ended without a result, as far as the scheduler needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another attempt would end the same, or nobody asked for one: a timeout, or a payload that cannot be read.
    Final,
    /// Its worker died: retried while [`JobPolicy::retries`] lasts.
    Died,
    /// The function panicked: retried only if [`JobPolicy::retry_panics`] is set.
    Panicked,
}

/// The settings of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobPolicy {
    /// Items per chunk, kept exactly; `None`: adapted to measured item times.
    pub chunksize: Option<NonZeroU64>,
    /// How often an item may be retried. 0: it runs at most once.
    pub retries: u32,
    /// Whether an item that panics is retried.
    pub retry_panics: bool,
    /// Whether an item that counts as failed is retried.
    pub retry_failed: bool,
    /// Among a pool's jobs that have something to run, the highest priority goes first.
    pub priority: i32,
    /// Whether idle slots may run a second copy of a chunk that takes far longer than others of the job. The first
    /// outcome of each item counts. Never while `retries` is 0.
    pub speculate: bool,
}
