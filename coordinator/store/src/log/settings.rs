//! Settings of a journal, and what follows from them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Settings of a journal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Its directory.
    pub directory: PathBuf,
    /// The most bytes that it takes on disk.
    pub size: u64,
    /// How long outcomes wait to be picked up.
    pub expiry: Duration,
    /// The most bytes in memory that may wait for the disk when more items arrive.
    pub backlog: u64,
    /// When it is opened, in ms since 1970. Jobs that end because of damage end at this time.
    pub opened_ms: u64,
}

impl Settings {
    /// Returns the default settings: 10 GiB, 7 days, 64 MiB.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let (size, expiry) = (10 << 30, Duration::from_secs(7 * 24 * 3600));
        let opened_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Self { directory: directory.into(), size, expiry, backlog: 64 << 20, opened_ms }
    }

    /// Returns the size of a full segment: there are about a hundred, and one is not too much to empty.
    pub(super) fn segment(&self) -> u64 {
        (self.size / 128).clamp(256, 256 << 20)
    }

    /// Returns the size up to which more items are accepted: an eighth is for outcomes, and some for segments being
    /// emptied.
    pub(super) fn room_for_items(&self) -> u64 {
        (self.size - self.size / 8).saturating_sub(2 * self.segment())
    }

    /// Returns the number of records up to which more items are accepted: each takes about 50 bytes of memory, and a
    /// job some hundreds.
    pub(super) fn most_records(&self) -> u64 {
        self.size / 512
    }
}

/// The longest name that a job may have, in bytes.
pub(super) const LONGEST_NAME: usize = 1024;
