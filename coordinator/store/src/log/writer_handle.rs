//! The handle of whatever writes the journal: a thread, or a task in simulations.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use super::queued::QueuedBatch;
use super::storage::Storage;
use super::writer::{self, Shared};

/// The most batches that wait for the writer, which takes all of them at once. The journal gathers the rest.
pub(super) const BATCHES: usize = 4;

#[derive(Debug)]
pub(super) enum WriterHandle {
    Thread(SyncSender<QueuedBatch>, JoinHandle<()>),
    /// Nothing more is written when the task is gone.
    Task(tokio::sync::mpsc::Sender<QueuedBatch>),
}

impl WriterHandle {
    /// Starts a thread.
    pub(super) fn start(storage: Arc<dyn Storage>, shared: Arc<Shared>) -> io::Result<Self> {
        let (batches, received) = sync_channel(BATCHES);
        let thread = thread::Builder::new().name("farpool-journal".to_owned());
        let thread = thread.spawn(move || writer::run(&*storage, &received, &shared))?;
        Ok(Self::Thread(batches, thread))
    }

    /// Sends a batch; returns it if too many wait, or if the writer is gone.
    pub(super) fn send(&self, queued: QueuedBatch) -> Result<(), QueuedBatch> {
        match self {
            WriterHandle::Thread(batches, _) => {
                batches.try_send(queued).map_err(|(TrySendError::Full(back) | TrySendError::Disconnected(back))| back)
            }
            WriterHandle::Task(batches) => batches.try_send(queued).map_err(|back| back.into_inner()),
        }
    }

    /// Has a last batch written, if possible, and waits for that.
    pub(super) fn end(self, last: QueuedBatch, shared: &Shared) {
        match self {
            WriterHandle::Thread(batches, thread) => {
                shared.stop();
                // The thread takes it, or has ended.
                let _ = batches.send(last);
                drop(batches);
                let _ = thread.join();
            }
            // It was killed.
            WriterHandle::Task(_) => {}
        }
    }
}
