//! Entries that are appended to a job.

use bytes::Bytes;
use farpool_proto::v1::Failure;

/// Something that happened to a job.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// Items have arrived, in the layout of `farpool.v1.Items`: after all previous ones.
    Items {
        /// Index of the first one.
        first: u64,
        /// Their bytes.
        data: Bytes,
        /// The end of each of them.
        ends: Bytes,
    },
    /// The job is complete: no more items will arrive.
    ItemsEnded {
        /// One above the highest index.
        end: u64,
        /// The time.
        now_ms: u64,
    },
    /// Items were run, with these results in the layout of `farpool.v1.ItemsDone`.
    Done {
        /// Index of the first one.
        first: u64,
        /// Their results.
        data: Bytes,
        /// The end of each of them.
        ends: Bytes,
        /// Whether they count as failed.
        failed: bool,
        /// How many attempts each took; 0: one.
        attempts: u32,
    },
    /// Consecutive items, at least one, have failed for the same reason.
    Failed {
        /// Index of the first one.
        first: u64,
        /// The number of items.
        count: u64,
        /// Why.
        failure: &'a Failure,
    },
    /// Items below an index may be at agents once this is acknowledged.
    Fed {
        /// The index.
        end: u64,
    },
    /// The job's pool runs at an agent from now on, or no longer does.
    Placed {
        /// The agent.
        agent: Bytes,
        /// Whether it no longer runs there.
        gone: bool,
    },
    /// No more outcomes will arrive.
    Ended {
        /// Whether it was cancelled: then items may lack outcomes.
        cancelled: bool,
        /// Why its pool cannot run.
        failure: Option<&'a Failure>,
        /// The time.
        now_ms: u64,
    },
}
