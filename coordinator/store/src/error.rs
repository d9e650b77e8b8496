//! Errors of a store.

use std::fmt;

/// The store could not be opened, or refused something.
#[derive(Clone, Debug)]
pub struct JobStoreError {
    kind: JobStoreErrorKind,
    message: String,
}

/// Why a store could not be opened, or refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobStoreErrorKind {
    /// Another process has it.
    Locked,
    /// A later version wrote it.
    Newer,
    /// Records that may matter cannot be read.
    Damaged,
    /// The directory or a file cannot be read or written. While the store is open, writing is retried.
    Io,
    /// It has its full size, and will not shrink by itself.
    Full,
    /// It has no room at the moment: it is shrinking, or the disk does not keep up.
    Busy,
    /// A job of this name exists.
    NameTaken,
    /// There is no such job or pool.
    NotFound,
    /// It contradicts what is stored, such as repeated outcomes, or items beyond the end.
    Invalid,
}

impl JobStoreError {
    /// Makes an error of this kind with this message.
    pub fn new(kind: JobStoreErrorKind, message: impl fmt::Display) -> JobStoreError {
        JobStoreError { kind, message: message.to_string() }
    }

    /// Returns the kind of error.
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
