//! What a store says of itself.

use std::sync::Arc;

use tokio::sync::Notify;

/// What has become of what was flushed.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// As [`JobStore::acknowledged`](super::JobStore::acknowledged).
    pub acknowledged: u64,
    /// Why nothing can be written; it is tried again and again.
    pub failed: Option<Arc<str>>,
    /// What operators should know.
    pub warnings: Vec<String>,
    /// Jobs that are incomplete again: see [`JobStore::withdraw_end`](super::JobStore::withdraw_end).
    pub withdrawn: Vec<u64>,
}

/// Wakes whoever waits for a store's [`Progress`]. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Wakeup {
    notify: Arc<Notify>,
}

impl Wakeup {
    /// Something has changed, and only then: who waits is woken, or whoever waits next.
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
    /// Bytes that it takes up, or will when all is written.
    pub bytes: u64,
    /// Bytes that it may take up.
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
