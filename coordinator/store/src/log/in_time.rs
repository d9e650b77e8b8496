//! A journal on a simulated disk, written by a task in simulated time. For simulations.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{sleep, timeout};

use super::group::{Attempt, Group};
use super::left_out::LeftOut;
use super::owner::Journal;
use super::queued::QueuedBatch;
use super::settings::Settings;
use super::simulated::Simulated;
use super::writer::{Backoff, Shared};
use super::writer_handle::{BATCHES, WriterHandle};
use crate::error::JobStoreError;

/// Opens the journal on a simulated disk, and returns the task that writes it. Dropping the task is like killing the
/// process.
///
/// # Errors
/// Like [`Journal::open`].
#[doc(hidden)]
pub fn open_simulated(
    disk: &Arc<Simulated>,
    settings: Settings,
    warn: &mut dyn FnMut(String),
) -> Result<(Journal, impl Future<Output = ()> + use<>), JobStoreError> {
    let (batches, received) = channel(BATCHES);
    let mut shared = Arc::default();
    let storage = (Arc::clone(disk) as _, Some(Arc::clone(disk)));
    let journal = Journal::open_with(storage, settings, warn, |own| {
        shared = own;
        Ok(WriterHandle::Task(batches))
    })?;
    Ok((journal, write_all(Arc::clone(disk), received, shared)))
}

/// Writes like the thread, with time between the steps.
async fn write_all(disk: Arc<Simulated>, mut batches: Receiver<QueuedBatch>, shared: Arc<Shared>) {
    let mut left_out = LeftOut::default();
    while let Some(first) = batches.recv().await {
        let mut group = Group::gather(first, &mut left_out, || batches.try_recv().ok());
        let mut backoff = Backoff::default();
        loop {
            let written = take_steps(&disk, group.attempt()).await;
            if shared.note(&*disk, &mut group, written, &mut left_out) {
                break;
            }
            let _ = timeout(backoff.next(), shared.retry_now.notified()).await;
        }
    }
}

async fn take_steps(disk: &Simulated, mut attempt: Attempt<'_>) -> std::io::Result<()> {
    loop {
        let lag = disk.lag();
        if lag > Duration::ZERO {
            sleep(lag).await;
        }
        if !attempt.step(disk)? {
            return Ok(());
        }
    }
}
