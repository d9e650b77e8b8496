//! Reading without waiting for the disk: a few tasks at a time read, on threads that may block.
//!
//! A read looks up locations in the index when it begins. Before it ends, compaction may have moved the records and
//! removed the segment. Then the task asks the journal's owner for the new locations and reads there; callers do not
//! notice.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;

use super::location::RecordLocation;
use super::part::Part;
use super::reader::{NotRead, Reader, RecordContents};
use super::simulated::Simulated;
use super::writer::Shared;
use crate::reading::{Read, ReadError, Unread};

/// The most reads from disk at once, each on a thread.
const AT_ONCE: usize = 8;

/// Reads on behalf of tasks. All clones read the same journal.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    pub(super) reader: Reader,
    turns: Arc<Semaphore>,
    /// A simulated disk, which the task itself reads in simulated time.
    in_time: Option<Arc<Simulated>>,
    shared: Arc<Shared>,
}

/// A record to read, and its items.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) part: Part,
    pub(super) location: RecordLocation,
    pub(super) first: u64,
    pub(super) count: u64,
}

/// Why reading stopped.
enum Stop {
    /// All were read.
    Done,
    /// The next one cannot be read.
    Unread(Wanted, ReadError),
    /// The next one was moved: these remain to be read.
    Moved(Vec<Wanted>),
}

impl Wanted {
    pub(super) fn bytes(wanted: &[Self]) -> u64 {
        wanted.iter().map(|wanted| wanted.location.bytes()).sum()
    }

    fn unread(self, error: ReadError) -> Unread {
        Unread { first: self.first, count: self.count, error }
    }
}

impl Reads {
    pub(super) fn new(reader: Reader, in_time: Option<Arc<Simulated>>, shared: Arc<Shared>) -> Self {
        Self { reader, turns: Arc::new(Semaphore::new(AT_ONCE)), in_time, shared }
    }

    /// Reads these in order, up to the first that cannot be read or is no longer kept. `made` converts a record of
    /// the right kind.
    pub(super) async fn all<T>(self, wanted: Vec<Wanted>, made: fn(RecordContents) -> Option<T>) -> Read<T> {
        let mut parts = Vec::with_capacity(wanted.len());
        let unread = self.each(wanted, |kept| made(kept).map(|part| parts.push(part)).is_some()).await;
        Read { parts, unread }
    }

    /// Reads these, and passes them to `takes`, which returns whether they are of the right kind.
    pub(super) async fn each(
        self,
        mut wanted: Vec<Wanted>,
        mut takes: impl FnMut(RecordContents) -> bool,
    ) -> Option<Unread> {
        // It is never closed.
        let _turn = self.turns.acquire().await.ok();
        loop {
            let next = *wanted.first()?;
            let reader = self.reader.clone();
            let (read, stop) = match self.run(move || read_all(&reader, wanted)).await {
                Ok(read) => read,
                Err(panicked) => return Some(next.unread(ReadError::Unavailable(panicked.to_string()))),
            };
            for (wanted, kept) in read {
                if !takes(kept) {
                    return Some(wanted.unread(ReadError::Lost("another record is in its place".to_owned())));
                }
            }
            match stop {
                Stop::Done => return None,
                Stop::Unread(wanted, error) => return Some(wanted.unread(error)),
                Stop::Moved(rest) => {
                    let first = *rest.first()?;
                    wanted = self.relocated(rest).await;
                    if wanted.first().is_some_and(|found| found.location == first.location) {
                        return Some(first.unread(ReadError::Lost("its segment is not there".to_owned())));
                    }
                }
            }
        }
    }

    /// Returns them with their current locations, up to the first that is no longer kept.
    async fn relocated(&self, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
        let locations = self.shared.find(wanted.iter().map(|wanted| wanted.part).collect()).await;
        wanted.truncate(locations.len());
        wanted.iter_mut().zip(locations).for_each(|(wanted, location)| wanted.location = location);
        wanted
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match &self.in_time {
            None => spawn_blocking(work).await,
            Some(disk) => {
                sleep(disk.lag()).await;
                Ok(work())
            }
        }
    }
}

fn read_all(reader: &Reader, wanted: Vec<Wanted>) -> (Vec<(Wanted, RecordContents)>, Stop) {
    let mut read = Vec::with_capacity(wanted.len());
    for (at, &next) in wanted.iter().enumerate() {
        let error = match reader.read(next.location) {
            Ok(kept) => {
                read.push((next, kept));
                continue;
            }
            Err(NotRead::Moved) => return (read, Stop::Moved(wanted[at..].to_vec())),
            Err(NotRead::Damaged(why)) => ReadError::Lost(why),
            Err(NotRead::Io(error)) => ReadError::Unavailable(error.to_string()),
        };
        return (read, Stop::Unread(next, error));
    }
    (read, Stop::Done)
}
