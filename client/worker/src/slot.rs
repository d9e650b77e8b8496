//! The number of this worker, by which tasks choose devices, ports and folders.

use std::sync::OnceLock;

use farpool_link::Status;

static NUMBER: OnceLock<u32> = OnceLock::new();

/// Keeps the number that the agent has given this worker.
pub(crate) fn begin(status: &Status) {
    // A worker has one number.
    let _ = NUMBER.set(status.worker_number());
}

/// Returns the number of this worker, which no other worker of its agent has at the same time; also in processes that its tasks
/// have forked. `None` in other processes.
pub fn slot() -> Option<u32> {
    NUMBER.get().copied()
}
