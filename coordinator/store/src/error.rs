//! What can go wrong with a store.

use std::fmt;

/// The store could not be opened, or does not take something.
#[derive(Clone, Debug)]
pub struct JobStoreError {
    kind: JobStoreErrorKind,
    message: String,
}

/// Why a store could not be opened, or does not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStoreErrorKind {
    /// Another process has it.
    Locked,
    /// It was written by a later version.
    Newer,
    /// Records that may matter cannot be read.
    Damaged,
    /// The directory or a file cannot be read or written; while it is open: until further notice.
    Io,
    /// It is as large as it may be, and does not become smaller by itself.
    Full,
    /// It has no room for now: it is becoming smaller, or the disk does not keep up.
    Busy,
    /// There is a job of this name.
    NameTaken,
    /// There is no such job, or pool.
    NotFound,
    /// It does not fit what is there: outcomes that came before, items behind the end.
    Invalid,
}

impl JobStoreError {
    /// An error of this kind, which says this.
    pub fn new(kind: JobStoreErrorKind, message: impl fmt::Display) -> JobStoreError {
        JobStoreError { kind, message: message.to_string() }
    }

    /// Why.
    pub fn kind(&self) -> JobStoreErrorKind {
        self.kind
    }
}

impl fmt::Display for JobStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for JobStoreError {}
