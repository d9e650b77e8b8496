//! What is kept of a job.

use bytes::Bytes;
use farpool_core::PoolId;

use crate::store::Store;

/// A job that has not ended. What it still has to do, the core knows.
pub(crate) struct Job {
    pub(crate) pool: PoolId,
    /// The client's number for it.
    pub(crate) number: u64,
    pub(crate) function: Bytes,
    pub(crate) timeout_ns: u64,
    pub(crate) whole_chunks: bool,
    pub(crate) input_ended: bool,
    pub(crate) store: Store,
}
