//! Errors of programs on disk.

use std::fmt;
use std::io;

use tonic::Status;

/// A program could not be stored.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

/// Why a program could not be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// It is larger than the bound of the store.
    TooLarge,
    /// There is no room: the stored programs are in use, or the disk is full.
    Full,
    /// It is incomplete.
    Incomplete,
    /// It differs from what was announced.
    Mismatch,
    /// The directory or a file cannot be read or written.
    Io,
}

impl StoreError {
    pub(super) fn new(kind: StoreErrorKind, message: String) -> StoreError {
        StoreError { kind, message }
    }

    pub(super) fn io(doing: impl fmt::Display, error: &io::Error) -> StoreError {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded].contains(&error.kind());
        let kind = if full { StoreErrorKind::Full } else { StoreErrorKind::Io };
        StoreError { kind, message: format!("{doing}: {error}") }
    }

    /// Returns why it could not be stored.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Status {
        match error.kind {
            StoreErrorKind::TooLarge | StoreErrorKind::Full => Status::resource_exhausted(error.message),
            // The program may be fine: its sender may have been cut off.
            StoreErrorKind::Incomplete => Status::cancelled(error.message),
            StoreErrorKind::Mismatch => Status::invalid_argument(error.message),
            StoreErrorKind::Io => Status::internal(error.message),
        }
    }
}
