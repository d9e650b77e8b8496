//! Who writes what the journal hands over: a thread, or in simulations a task of theirs.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use super::handed::Handed;
use super::storage::Storage;
use super::writer::{self, Shared};

/// Batches that wait for it; it takes all of them at once. More is gathered by the journal.
pub(super) const BATCHES: usize = 4;

#[derive(Debug)]
pub(super) enum Hands {
    Thread(SyncSender<Handed>, JoinHandle<()>),
    /// Nothing is written any more when the task is gone.
    Task(tokio::sync::mpsc::Sender<Handed>),
}

impl Hands {
    /// Starts a thread.
    pub(super) fn start(storage: Arc<dyn Storage>, shared: Arc<Shared>) -> io::Result<Self> {
        let (batches, received) = sync_channel(BATCHES);
        let thread = thread::Builder::new().name("farpool-journal".to_owned());
        let thread = thread.spawn(move || writer::run(&*storage, &received, &shared))?;
        Ok(Self::Thread(batches, thread))
    }

    /// Hands over a batch; gives it back if too many wait, or if there is nobody.
    pub(super) fn give(&self, handed: Handed) -> Result<(), Handed> {
        match self {
            Hands::Thread(batches, _) => {
                batches.try_send(handed).map_err(|(TrySendError::Full(back) | TrySendError::Disconnected(back))| back)
            }
            Hands::Task(batches) => batches.try_send(handed).map_err(|back| back.into_inner()),
        }
    }

    /// Has a last batch written, if it can be, and waits for that.
    pub(super) fn end(self, last: Handed, shared: &Shared) {
        match self {
            Hands::Thread(batches, thread) => {
                shared.stop();
                // The thread takes it, or has ended.
                let _ = batches.send(last);
                drop(batches);
                let _ = thread.join();
            }
            // It was killed.
            Hands::Task(_) => {}
        }
    }
}
