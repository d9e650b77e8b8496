//! Reading without waiting for the disk: tasks read, a few at a time, on threads that may wait.
//!
//! What is to be read is looked up in the index when it is asked for. Until it is read, compaction may have moved it and removed the
//! segment. Then the journal's owner is asked where it is now, and it is read there: nobody else hears of that.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;

use super::part::Part;
use super::place::Place;
use super::reader::{Kept, NotRead, Reader};
use super::simulated::Simulated;
use super::writer::Shared;
use crate::reading::{Read, ReadError, Unread};

/// Records that are read from disk at once, each by a thread.
const AT_ONCE: usize = 8;

/// Who reads. All clones read the same journal.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    pub(super) reader: Reader,
    turns: Arc<Semaphore>,
    /// A disk that is read in simulated time, by the task itself.
    in_time: Option<Arc<Simulated>>,
    shared: Arc<Shared>,
}

/// A record that is to be read, and the items that it is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) part: Part,
    pub(super) place: Place,
    pub(super) first: u64,
    pub(super) count: u64,
}

/// Why no more was read.
enum Stop {
    /// That was all.
    Through,
    /// The next one cannot be read.
    Unread(Wanted, ReadError),
    /// The next one has been moved: these are to be read.
    Moved(Vec<Wanted>),
}

impl Wanted {
    pub(super) fn bytes(wanted: &[Self]) -> u64 {
        wanted.iter().map(|wanted| wanted.place.bytes()).sum()
    }

    fn unread(self, error: ReadError) -> Unread {
        Unread { first: self.first, count: self.count, error }
    }
}

impl Reads {
    pub(super) fn new(reader: Reader, in_time: Option<Arc<Simulated>>, shared: Arc<Shared>) -> Self {
        Self { reader, turns: Arc::new(Semaphore::new(AT_ONCE)), in_time, shared }
    }

    /// Reads these one behind the other, up to the first that cannot be read or is not kept any more. `made` makes of a record what is
    /// wanted, if it is of the right kind.
    pub(super) async fn all<T>(self, wanted: Vec<Wanted>, made: fn(Kept) -> Option<T>) -> Read<T> {
        let mut parts = Vec::with_capacity(wanted.len());
        let unread = self.each(wanted, |kept| made(kept).map(|part| parts.push(part)).is_some()).await;
        Read { parts, unread }
    }

    /// Reads these, and gives them to `takes`, which says whether they are of the right kind.
    pub(super) async fn each(self, mut wanted: Vec<Wanted>, mut takes: impl FnMut(Kept) -> bool) -> Option<Unread> {
        // Nobody closes it.
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
                Stop::Through => return None,
                Stop::Unread(wanted, error) => return Some(wanted.unread(error)),
                Stop::Moved(rest) => {
                    let first = *rest.first()?;
                    wanted = self.found(rest).await;
                    if wanted.first().is_some_and(|found| found.place == first.place) {
                        return Some(first.unread(ReadError::Lost("its segment is not there".to_owned())));
                    }
                }
            }
        }
    }

    /// The same where they are now, up to the first that is not kept any more.
    async fn found(&self, mut wanted: Vec<Wanted>) -> Vec<Wanted> {
        let places = self.shared.find(wanted.iter().map(|wanted| wanted.part).collect()).await;
        wanted.truncate(places.len());
        wanted.iter_mut().zip(places).for_each(|(wanted, place)| wanted.place = place);
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

fn read_all(reader: &Reader, wanted: Vec<Wanted>) -> (Vec<(Wanted, Kept)>, Stop) {
    let mut read = Vec::with_capacity(wanted.len());
    for (at, &next) in wanted.iter().enumerate() {
        let error = match reader.read(next.place) {
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
    (read, Stop::Through)
}
