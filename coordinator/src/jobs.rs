//! What is kept of a job.

use bytes::Bytes;
use farpool_core::PoolId;
use farpool_proto::v1::{Label, Window, client_event};

use crate::rate::Rate;
use crate::store::Store;

/// A job that has not ended. What it still has to do, the core knows.
pub(crate) struct Job {
    pub(crate) pool: PoolId,
    /// The client's number for it.
    pub(crate) number: u64,
    /// What operators call it: never used again.
    pub(crate) name: u64,
    pub(crate) function: Bytes,
    pub(crate) timeout_ns: u64,
    pub(crate) whole_chunks: bool,
    pub(crate) payload_limit: u64,
    pub(crate) input_ended: bool,
    pub(crate) label: String,
    pub(crate) priority: i32,
    pub(crate) require: Vec<Label>,
    pub(crate) opened_at: u64,
    /// Items whose outcome is a failure.
    pub(crate) failed: u64,
    pub(crate) rate: Rate,
    pub(crate) store: Store,
}

/// About what a job takes once some of it has run: here, in the core, and in its client's table of numbers. A table that has just grown
/// has room for twice as many, and when a client leaves, the messages about the end of all its jobs are in memory at once.
const JOB_COST: u64 = 3 << 10;

impl Job {
    /// What it takes beside its items: with very many jobs that is what fills the memory.
    pub(crate) fn own_cost(&self) -> u64 {
        let required: usize = self.require.iter().map(|label| label.key.len() + label.value.len()).sum();
        JOB_COST + (self.function.len() + self.label.len() + required) as u64
    }

    /// Items have their outcomes. Returns what the client is to be told if there is room for a good many more.
    pub(crate) fn release(&mut self, first: u64, count: u64) -> Option<client_event::Body> {
        let limit = self.store.release(first, count).filter(|_| !self.input_ended)?;
        Some(client_event::Body::Window(Window { job: self.number, limit }))
    }
}
