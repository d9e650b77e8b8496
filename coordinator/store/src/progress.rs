//! The state that a store reports.

use std::sync::Arc;

use tokio::sync::Notify;

/// The progress of flushed entries.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The number that [`JobStore::acknowledged`](super::JobStore::acknowledged) returns.
    pub acknowledged: u64,
    /// Why nothing can be written; it is retried.
    pub failed: Option<Arc<str>>,
    /// Messages for operators.
    pub warnings: Vec<String>,
    /// Jobs that are incomplete again: see [`JobStore::withdraw_end`](super::JobStore::withdraw_end).
    pub withdrawn: Vec<u64>,
}

/// Wakes a task that waits for a store's [`Progress`]. All clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Wakeup {
    notify: Arc<Notify>,
}

impl Wakeup {
    /// Reports a change: wakes the task that waits, or else the next one to wait.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Returns when there has been progress since it last returned.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// A store as operators see it.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Bytes that it takes, or will when all is written.
    pub bytes: u64,
    /// The most bytes that it may take.
    pub size: u64,
    /// Damaged files that are kept beside it, which do not count towards its size.
    pub aside: Vec<Aside>,
    /// What was damaged or missing when it was opened, and what that means for jobs.
    pub damage: Vec<String>,
}

/// A damaged file that is kept beside a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The file's name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}
