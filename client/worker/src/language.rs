//! The language that functions are written in.

use std::sync::Arc;

use bytes::Bytes;

use crate::items::Items;

/// A function, which runs items until there are none, as [`run`](crate::run) does.
pub type Task = Arc<dyn Fn(&mut dyn Items) + Send + Sync>;

/// The language that a program's functions are written in.
pub trait Language: Send + Sync {
    /// Finds the function that a client names by these bytes. Called once for each job, and for the pool's initializer:
    /// a function with one item and no result.
    ///
    /// # Errors
    /// Why it was not found: each of the job's items fails with this message.
    fn find(&self, function: Bytes) -> Result<Task, String>;

    /// Returns the stack size of each thread that runs items, in bytes, if a worker has several. The first one is the
    /// program's main thread.
    fn stack_bytes(&self) -> usize {
        8 << 20
    }

    /// Returns what to do about a result that is larger than the pool's `payload_limit`. `None` if the client's front
    /// gives the advice.
    fn advice_on_large_results(&self) -> Option<&'static str> {
        Some("return less, or raise the pool's payload_limit")
    }

    /// Called before the fork server forks a worker. It has only this thread.
    fn before_fork(&self) {}

    /// Called in the fork server after the fork, even if that failed.
    fn after_fork(&self) {}

    /// Called in the forked worker. `worker`: its number, which no other worker of its pool on this host has had.
    fn after_fork_in_worker(&self, _worker: u32) {}

    /// Called in a worker that was not forked but started again, because the fork server has threads. `worker`: as above.
    fn started_again(&self, _worker: u32) {}
}
