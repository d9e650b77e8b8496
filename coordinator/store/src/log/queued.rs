//! The batches that the owner sends to the thread that writes.

use super::batch::Batch;

/// A batch, and the number of its last step.
#[derive(Debug)]
pub(super) struct QueuedBatch {
    pub(super) batch: Batch,
    pub(super) number: u64,
}
