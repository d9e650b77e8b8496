//! Runs work that waits for a disk, never on the loop's thread.

use std::sync::Arc;

use farpool_store::log::Simulated;
use tokio::task::{JoinError, spawn_blocking};

#[derive(Clone, Debug)]
pub(super) enum Blocking {
    /// On threads that may block.
    Threads,
    /// In simulated time, as fast as this disk.
    SimulatedTime(Arc<Simulated>),
}

impl Blocking {
    /// Runs `work`, and returns its result.
    ///
    /// # Errors
    /// If it panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match self {
            Blocking::Threads => spawn_blocking(work).await,
            Blocking::SimulatedTime(disk) => {
                tokio::time::sleep(disk.lag()).await;
                Ok(work())
            }
        }
    }
}
