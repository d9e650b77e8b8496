//! What the owner hands to the thread that writes.

use super::batch::Batch;

/// A batch, and what is durable when it is.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) batch: Batch,
    pub(super) number: u64,
}
