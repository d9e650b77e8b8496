//! Everything that the scheduler can ask its caller to do.

use std::num::NonZeroU32;

use crate::ids::{AgentId, ChunkId, JobId, PoolId};

/// Something that the caller must do, in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Have the agent start the pool. It answers with [`Event::PlaceStarted`](crate::Event::PlaceStarted) or
    /// [`Event::PlaceUnfit`](crate::Event::PlaceUnfit).
    StartPool {
        /// The agent.
        agent: AgentId,
        /// The pool.
        pool: PoolId,
        /// Workers that the pool may have there; `None`: as many as the agent has slots.
        workers: Option<NonZeroU32>,
    },
    /// Change the pool's number of workers at the agent.
    ResizePool {
        /// The agent.
        agent: AgentId,
        /// The pool.
        pool: PoolId,
        /// Workers that the pool may have there.
        workers: NonZeroU32,
    },
    /// Have the agent stop the pool, of which it holds nothing. It answers with
    /// [`Event::PlaceStopped`](crate::Event::PlaceStopped). The workers are needed elsewhere. There is no such action
    /// for a closed pool, or at an agent that is leaving.
    StopPool {
        /// The agent.
        agent: AgentId,
        /// The pool.
        pool: PoolId,
    },
    /// Tell the agent about the job. Its first chunk follows.
    StartJob {
        /// The agent.
        agent: AgentId,
        /// The job.
        job: JobId,
    },
    /// Send the agent these items to run. They may be a second copy of items that another agent is late with.
    Assign {
        /// The agent.
        agent: AgentId,
        /// The id under which the agent reports on them.
        chunk: ChunkId,
        /// The job.
        job: JobId,
        /// The first item.
        first: u64,
        /// How many.
        count: u64,
        /// The attempt number of the first item, from 1. All other items are at their first attempt.
        attempt: u32,
    },
    /// Have the agent drop the rest of the chunk and kill what runs of it, because another agent was faster. The chunk
    /// may have ended there already, and no report of it is needed.
    CancelChunk {
        /// The agent.
        agent: AgentId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// Ask the agent to give back the items of the chunk that have not begun.
    Retract {
        /// The agent.
        agent: AgentId,
        /// The chunk.
        chunk: ChunkId,
    },
    /// Results just reported are the items' outcomes: deliver them. They may be only part of the report: another agent
    /// was faster with the rest, or the rest is retried. For one report, this comes before
    /// [`Retrying`](Self::Retrying).
    Accept {
        /// The job.
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
        /// The job.
        job: JobId,
        /// The first item.
        first: u64,
        /// How many; 1 unless an agent was lost.
        count: u64,
        /// How often each was tried.
        attempts: u32,
        /// Why.
        cause: Cause,
    },
    /// The item will be retried. A result reported for it is dropped.
    Retrying {
        /// The job.
        job: JobId,
        /// The item.
        item: u64,
        /// The number of the next attempt.
        attempt: u32,
    },
    /// Tell the agent that it can forget the job.
    EndJob {
        /// The agent.
        agent: AgentId,
        /// The job.
        job: JobId,
        /// Whether to kill its running items.
        kill: bool,
    },
    /// Every item has its outcome, or the job was cancelled. The id is no longer valid.
    JobFinished {
        /// The job.
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
    /// Their agent is lost, and they may not run again.
    AgentLost,
}
