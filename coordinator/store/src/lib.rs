//! What a coordinator keeps of detached jobs: their items, and what has become of these.
//!
//! The server knows a store only as a [`JobStore`]. The embedded one is a log on this host's disk ([`log`]); another one, a database that
//! several coordinators share, would be a second implementation.
//!
//! **One thread owns a store, and never waits for it.** It appends what happens, and gets a number for that ([`JobStore::flush`]);
//! when [`JobStore::acknowledged`] has come to this number, everything up to there outlives the coordinator. A [`Wakeup`] tells when
//! to look. What is read comes as a future ([`Reading`]).
//!
//! **Facts are in memory.** The store has a [`Job`] for each job, as of the last append, acknowledged or not. Items and outcomes are
//! read by job and index; where they lie is the store's own affair.

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

/// Keeps detached jobs, each under its tenant and name. Jobs are called by the numbers that the store gives them.
///
/// No method waits for a disk or a network, except [`opening_now`](Self::opening_now). Times are milliseconds since 1970.
pub trait JobStore: fmt::Debug + Send {
    /// Returns the tenant's job of this name.
    fn find(&self, tenant: &str, name: &str) -> Option<&Job>;

    /// Returns the job of this number.
    fn job(&self, number: u64) -> Option<&Job>;

    /// Returns all jobs, in the order in which they were opened.
    fn jobs(&self) -> Box<dyn Iterator<Item = &Job> + '_>;

    /// Says what operators see of the store.
    fn describe(&self) -> Description;

    /// Says where it is, as people know it: a directory, an address.
    fn location(&self) -> String;

    /// How long jobs that have ended wait to be picked up.
    fn expiry(&self) -> Duration;

    /// Opens a job in a pool of its own; returns its number.
    ///
    /// # Errors
    /// If the name is taken or none, if there is no room, or if nothing can be written.
    fn open(&mut self, known: Known, pool: &OpenPool, job: &OpenJob, now_ms: u64) -> Result<u64, JobStoreError>;

    /// Adds to what is kept of a job. Whatever is said of a job that runs is taken, also while nothing can be written; items are
    /// taken only if there is room.
    ///
    /// # Errors
    /// If there is no such job, if the entry does not fit what is there, if it is too long, or if there is no room for items.
    fn append(&mut self, job: u64, entry: Entry<'_>) -> Result<(), JobStoreError>;

    /// Makes a job incomplete again of which [`Entry::ItemsEnded`] is not acknowledged, while nothing can be written. Not at once, and
    /// perhaps not at all: [`Progress::withdrawn`] has the job when it is so. From then on it is never found complete,
    /// whenever the coordinator ends.
    fn withdraw_end(&mut self, job: u64);

    /// Drops a job: nobody wants it any more, and its name is free.
    ///
    /// # Errors
    /// If there is no such job, or if nothing can be written.
    fn forget(&mut self, job: u64) -> Result<(), JobStoreError>;

    /// Drops a job that is not complete, also while nothing can be written. Until that is acknowledged it may be found again when the
    /// store is opened, incomplete.
    ///
    /// # Errors
    /// If there is no such job, or if it is complete.
    fn forget_incomplete(&mut self, job: u64) -> Result<(), JobStoreError>;

    /// Drops the jobs that ended long enough ago; returns their numbers and names.
    ///
    /// # Errors
    /// If nothing can be written.
    fn expire(&mut self, now_ms: u64) -> Result<Vec<(u64, String)>, JobStoreError>;

    /// When [`expire`](Self::expire) has something to do next, as far as is known.
    fn next_expiry(&self) -> Option<u64>;

    /// Whether jobs and items of so many bytes would be taken now. If the store is [`Busy`](JobStoreErrorKind::Busy), that may change
    /// with every [`progress`](Self::progress).
    ///
    /// # Errors
    /// Why not.
    fn takes(&self, bytes: u64) -> Result<(), JobStoreError>;

    /// Whether items should go on being run. Their outcomes are taken in any case, but the store would become larger than it may be, or
    /// they would fill the memory.
    fn takes_outcomes(&self) -> bool;

    /// Bytes that wait to be written, in memory.
    fn backlog(&self) -> u64;

    /// Has everything written that was appended so far; returns the number of the last entry.
    fn flush(&mut self) -> u64;

    /// Whether what is flushed now is written at once. Otherwise it waits for what is being written, and whatever comes meanwhile may as
    /// well be flushed with it.
    fn is_idle(&self) -> bool;

    /// Entries up to this number outlive the coordinator, as of the last [`progress`](Self::progress).
    fn acknowledged(&self) -> u64;

    /// Takes note of what was written, and of what follows from it. To be called whenever [`wakeup`](Self::wakeup) says so.
    fn progress(&mut self) -> Progress;

    /// What waits until there is [`progress`](Self::progress).
    fn wakeup(&self) -> Wakeup;

    /// Tries once more at once to write what could not be written. There is [`progress`](Self::progress) when the outcome is known.
    fn try_again(&self);

    /// Reads what a job was opened with.
    fn read_opening(&self, job: u64) -> Reading<Result<Opening, ReadError>>;

    /// Reads what a job was opened with, and blocks until it is read: for the server's start, when nobody waits yet.
    ///
    /// # Errors
    /// If it cannot be read.
    fn opening_now(&self, job: u64) -> Result<Opening, ReadError>;

    /// Reads items from the first of the range on, as they came: what begins in the range, `bytes` at most but one part in any case. Items
    /// that have outcomes may be left out, others are not: the parts end in front of one that is not there.
    fn read_items(&self, job: u64, range: Range<u64>, bytes: u64) -> Reading<Read<Items>>;

    /// Reads acknowledged outcomes from an index on, `bytes` at most but one part in any case; none: there are none. `skips`: items
    /// without outcomes are passed over. Otherwise the parts end in front of such an item.
    fn read_outcomes(&self, job: u64, from: u64, skips: bool, bytes: u64) -> Option<Reading<Read<Outcomes>>>;
}
