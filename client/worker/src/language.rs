//! Where functions come from.

use std::sync::Arc;

use crate::items::Items;

/// A function: it runs items until there are none, as [`run`](crate::run) does.
pub type Task = Arc<dyn Fn(&mut dyn Items) + Send + Sync>;

/// The language that a program's functions are written in.
pub trait Language: Send + Sync {
    /// Finds the function that a client calls by these bytes. It is asked once for each job, and for the pool's initializer, which
    /// is a function with one item and no result.
    ///
    /// # Errors
    /// Why there is none: each of the job's items fails with these words.
    fn find(&self, function: &[u8]) -> Result<Task, String>;

    /// The stack of each thread that runs items, in bytes, where a worker has several. The first one is the program's main thread.
    fn stack_bytes(&self) -> usize {
        8 << 20
    }

    /// The fork server is about to fork a worker. It has one thread, this one.
    fn before_fork(&self) {}

    /// It has forked one, if it could, and goes on.
    fn after_fork(&self) {}

    /// This process is the worker that was forked.
    fn after_fork_in_worker(&self) {}
}
