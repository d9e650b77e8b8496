//! What is added to a job.

use bytes::Bytes;
use farpool_proto::v1::Failure;

/// Something that has happened to a job.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// Items have come, in the layout of `farpool.v1.Items`: behind those that came before.
    Items {
        /// Index of the first one.
        first: u64,
        /// Their bytes.
        data: Bytes,
        /// Where each of them ends.
        ends: Bytes,
    },
    /// The job is complete: no more items come.
    ItemsEnded {
        /// One behind the highest index.
        end: u64,
        /// When it was.
        now_ms: u64,
    },
    /// Items were run, with these results in the layout of `farpool.v1.ItemsDone`.
    Done {
        /// Index of the first one.
        first: u64,
        /// Their results.
        data: Bytes,
        /// Where each of them ends.
        ends: Bytes,
        /// They count as failed.
        failed: bool,
        /// How many attempts each took; 0: one.
        attempts: u32,
    },
    /// Consecutive items, at least one, have failed alike.
    Failed {
        /// Index of the first one.
        first: u64,
        /// How many there are.
        count: u64,
        /// Why.
        failure: &'a Failure,
    },
    /// Items in front of an index may be at agents when this is acknowledged.
    Fed {
        /// The index.
        end: u64,
    },
    /// The job's pool runs at an agent from now on, or does not any more.
    Placed {
        /// The agent.
        agent: Bytes,
        /// It does not any more.
        gone: bool,
    },
    /// No more outcomes come.
    Ended {
        /// It was cancelled: not every item need have an outcome.
        cancelled: bool,
        /// Why its pool cannot run.
        failure: Option<&'a Failure>,
        /// When it was.
        now_ms: u64,
    },
}
