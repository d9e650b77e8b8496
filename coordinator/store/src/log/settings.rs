//! What a journal goes by, and what follows from it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a journal goes by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Where it is.
    pub directory: PathBuf,
    /// Bytes that it may take up on disk.
    pub size: u64,
    /// How long outcomes wait to be picked up.
    pub expiry: Duration,
    /// Bytes that may wait in memory for the disk when further items come.
    pub backlog: u64,
    /// When it is opened, in ms since 1970: jobs that end because of damage have ended then.
    pub opened_ms: u64,
}

impl Settings {
    /// As usual: 10 GiB, 7 days, 64 MiB.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        let (size, expiry) = (10 << 30, Duration::from_secs(7 * 24 * 3600));
        let opened_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Self { directory: directory.into(), size, expiry, backlog: 64 << 20, opened_ms }
    }

    /// When a segment is full: so there are about a hundred of them, and one is not too much to empty.
    pub(super) fn segment(&self) -> u64 {
        (self.size / 128).clamp(256, 256 << 20)
    }

    /// What there may be when further items come: an eighth is for outcomes, and something for segments that are being emptied.
    pub(super) fn room_for_items(&self) -> u64 {
        (self.size - self.size / 8).saturating_sub(2 * self.segment())
    }

    /// Records that may be kept when further items come: each takes up some 50 bytes of memory, a job some hundreds.
    pub(super) fn most_records(&self) -> u64 {
        self.size / 512
    }
}

/// The longest name that a job may have, in bytes.
pub(super) const LONGEST_NAME: usize = 1024;
