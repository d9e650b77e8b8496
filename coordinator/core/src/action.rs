//! All that the scheduler can ask for.

use std::num::NonZeroU32;

use crate::ids::{AgentId, ChunkId, JobId, PoolId};

/// Something to be done by the caller, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have the agent start the pool; it answers with [`Event::PlaceStarted`](crate::Event::PlaceStarted) or
    /// [`Event::PlaceUnfit`](crate::Event::PlaceUnfit).
    StartPool {
        /// Whom.
        agent: AgentId,
        /// What.
        pool: PoolId,
        /// Workers that it may have there; none: as many as the agent has slots.
        workers: Option<NonZeroU32>,
    },
    /// Give the pool another number of workers at the agent.
    ResizePool {
        /// Whom.
        agent: AgentId,
        /// What.
        pool: PoolId,
        /// Workers that it may have there.
        workers: NonZeroU32,
    },
    /// Have the agent stop the pool, of which it holds nothing; it answers with
    /// [`Event::PlaceStopped`](crate::Event::PlaceStopped). Its workers are wanted elsewhere. What is closed, or at an
    /// agent that leaves, is not told of here.
    StopPool {
        /// Whom.
        agent: AgentId,
        /// What.
        pool: PoolId,
    },
    /// Tell the agent about the job: its first chunk of it follows.
    StartJob {
        /// Whom.
        agent: AgentId,
        /// About what.
        job: JobId,
    },
    /// Send the agent these items to run. They may be a second copy of what another agent is late with.
    Assign {
        /// Whom.
        agent: AgentId,
        /// Under which name it reports on them.
        chunk: ChunkId,
        /// Of which job.
        job: JobId,
        /// The first item.
        first: u64,
        /// How many.
        count: u64,
        /// Which try this is of the first item, from 1. All other items are at their first.
        attempt: u32,
    },
    /// Have the agent drop what is left of the chunk, and kill what runs of it: others were faster. It may have ended there
    /// already, and no report of it is needed.
    CancelChunk {
        /// Whom.
        agent: AgentId,
        /// What.
        chunk: ChunkId,
    },
    /// Ask the agent to give back what has not begun of the chunk.
    Retract {
        /// Whom.
        agent: AgentId,
        /// What.
        chunk: ChunkId,
    },
    /// Results just reported are the items' outcomes: deliver them. It may be only part of the report: another
    /// agent was faster with the rest, or the rest is retried. For one report, this comes before [`Retrying`](Self::Retrying).
    Accept {
        /// Of which job.
        job: JobId,
        /// The first item.
        first: u64,
        /// How many.
        count: u64,
        /// How many attempts each took.
        attempts: u32,
    },
    /// These items have failed: deliver that.
    Fail {
        /// Of which job.
        job: JobId,
        /// The first item.
        first: u64,
        /// How many; 1 unless an agent was lost.
        count: u64,
        /// How often each was tried.
        attempts: u32,
        /// What to tell.
        cause: Cause,
    },
    /// The item will be retried. If a result of it was reported, that is dropped.
    Retrying {
        /// Of which job.
        job: JobId,
        /// Which.
        item: u64,
        /// The number of the try to come.
        attempt: u32,
    },
    /// Tell the agent that the job needs it no more.
    EndJob {
        /// Whom.
        agent: AgentId,
        /// About what.
        job: JobId,
        /// Whether to kill what runs of it.
        kill: bool,
    },
    /// Every item has had its outcome, or the job was cancelled. Its id means nothing any more.
    JobFinished {
        /// Which.
        job: JobId,
        /// Whether outcomes are missing.
        cancelled: bool,
    },
}

/// Why items failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The fault that is being handled.
    Reported,
    /// The agent that held them is gone, and they may not be run again.
    AgentLost,
}
