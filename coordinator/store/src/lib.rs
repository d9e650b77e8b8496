//! Keeps detached jobs for a coordinator: their items and outcomes.
//!
//! The server knows a store only as a [`JobStore`]. The embedded one is a log on this host's disk ([`log`]). A database
//! that several coordinators share would be a second implementation.
//!
//! **One thread owns a store, and never waits for it.** It appends entries and flushes them, which returns a number
//! ([`JobStore::flush`]). Once [`JobStore::acknowledged`] has reached this number, all these entries survive the
//! coordinator. A [`Wakeup`] reports when to look. What is read comes as a future ([`Reading`]).
//!
//! **Job states are in memory.** The store has a [`Job`] for each job, as of the last append, acknowledged or not.
//! Items and outcomes are read by job and index; only the store knows where they are.

mod entry;
mod error;
mod job;
pub mod log;
mod progress;
mod reading;
mod runs;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use farpool_proto::v1::{OpenJob, OpenPool};

pub use entry::Entry;
pub use error::{JobStoreError, JobStoreErrorKind};
pub use job::{Counts, Ended, Job, Known, Phase};
pub use progress::{Aside, Description, Progress, Wakeup};
pub use reading::{Items, Opening, Outcomes, Read, ReadError, Reading, Unread};
pub use runs::Runs;

/// Keeps detached jobs, each under its tenant and name. Jobs are identified by numbers from the store.
///
/// No method waits for a disk or a network, except [`opening_now`](Self::opening_now). Times are milliseconds since
/// 1970.
pub trait JobStore: fmt::Debug + Send {
    /// Returns the tenant's job with this name.
    fn find(&self, tenant: &str, name: &str) -> Option<&Job>;

    /// Returns the job with this number.
    fn job(&self, number: u64) -> Option<&Job>;

    /// Returns all jobs, in the order in which they were opened.
    fn jobs(&self) -> Box<dyn Iterator<Item = &Job> + '_>;

    /// Describes the store for operators.
    fn describe(&self) -> Description;

    /// Returns its location for people: a directory or an address.
    fn location(&self) -> String;

    /// Returns how long outcomes of ended jobs are kept for pick-up.
    fn expiry(&self) -> Duration;

    /// Opens a job in a pool of its own; returns its number.
    ///
    /// # Errors
    /// If the name is taken or empty, if there is no room, or if nothing can be written.
    fn open(&mut self, known: Known, pool: &OpenPool, job: &OpenJob, now_ms: u64) -> Result<u64, JobStoreError>;

    /// Appends an entry to a job. Entries of a running job are always accepted, even while nothing can be written.
    /// Items are accepted only if there is room.
    ///
    /// # Errors
    /// If there is no such job, if the entry contradicts what is stored, if it is too long, or if there is no room for
    /// items.
    fn append(&mut self, job: u64, entry: Entry<'_>) -> Result<(), JobStoreError>;

    /// Makes a job incomplete again, if its [`Entry::ItemsEnded`] is not acknowledged and nothing can be written. This
    /// takes time, and may not succeed: [`Progress::withdrawn`] reports the job when it is done. After that, the job is
    /// never found complete, even if the coordinator ends at any time.
    fn withdraw_end(&mut self, job: u64);

    /// Drops a job that is no longer needed, and frees its name.
    ///
    /// # Errors
    /// If there is no such job, or if nothing can be written.
    fn forget(&mut self, job: u64) -> Result<(), JobStoreError>;

    /// Drops a job that is not complete, even while nothing can be written. Until this is acknowledged, the job may be
    /// found again, incomplete, when the store is opened.
    ///
    /// # Errors
    /// If there is no such job, or if it is complete.
    fn forget_incomplete(&mut self, job: u64) -> Result<(), JobStoreError>;

    /// Drops jobs whose outcomes have expired; returns their numbers and names.
    ///
    /// # Errors
    /// If nothing can be written.
    fn expire(&mut self, now_ms: u64) -> Result<Vec<(u64, String)>, JobStoreError>;

    /// Returns when [`expire`](Self::expire) next has something to do, as far as is known.
    fn next_expiry(&self) -> Option<u64>;

    /// Checks whether jobs and items of this many bytes would be accepted now. If the store is
    /// [`Busy`](JobStoreErrorKind::Busy), that may change with every [`progress`](Self::progress).
    ///
    /// # Errors
    /// Why not.
    fn takes(&self, bytes: u64) -> Result<(), JobStoreError>;

    /// Whether to continue running items. Otherwise their outcomes are still accepted, but they exceed the store's size
    /// or fill the memory.
    fn takes_outcomes(&self) -> bool;

    /// Returns the bytes in memory that wait to be written.
    fn backlog(&self) -> u64;

    /// Starts writing everything appended so far; returns the number of the last entry.
    fn flush(&mut self) -> u64;

    /// Whether a flush would be written at once. Otherwise it waits for the current write, and later entries can be
    /// flushed with it.
    fn is_idle(&self) -> bool;

    /// Returns the number up to which entries survive the coordinator, as of the last [`progress`](Self::progress).
    fn acknowledged(&self) -> u64;

    /// Handles what was written. Call this after each [`wakeup`](Self::wakeup).
    fn progress(&mut self) -> Progress;

    /// Returns the wakeup for [`progress`](Self::progress).
    fn wakeup(&self) -> Wakeup;

    /// Retries a failed write at once. There is [`progress`](Self::progress) when the outcome is known.
    fn retry_now(&self);

    /// Reads the messages that opened a job.
    fn read_opening(&self, job: u64) -> Reading<Result<Opening, ReadError>>;

    /// Reads the messages that opened a job, and blocks until they are read. For the server's start, when nothing else
    /// has to wait.
    ///
    /// # Errors
    /// If they cannot be read.
    fn opening_now(&self, job: u64) -> Result<Opening, ReadError>;

    /// Reads stored parts with items that begin in the range, up to `bytes`, but at least one part. Items that have
    /// outcomes may be left out, but no others: the parts end before a missing item.
    fn read_items(&self, job: u64, range: Range<u64>, bytes: u64) -> Reading<Read<Items>>;

    /// Reads acknowledged outcomes from an index on, up to `bytes`, but at least one part; `None`: there are none. With
    /// `skips`, items without outcomes are skipped. Otherwise the parts end before such an item.
    fn read_outcomes(&self, job: u64, from: u64, skips: bool, bytes: u64) -> Option<Reading<Read<Outcomes>>>;
}
