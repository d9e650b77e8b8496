//! What can go wrong with a journal.

use std::fmt;

/// The journal could not be opened, or does not take something.
#[derive(Clone, Debug)]
pub struct JournalError {
    kind: JournalErrorKind,
    message: String,
}

/// Why a journal could not be opened, or does not take something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// Another process has it.
    Locked,
    /// It was written by a later version.
    Newer,
    /// Records that may matter cannot be read.
    Damaged,
    /// The directory or a file cannot be read or written; while it is open: until further notice.
    Io,
    /// It is as large as it may be.
    Full,
    /// The disk does not keep up.
    Busy,
    /// There is a job of this name.
    NameTaken,
    /// There is no such job, or pool.
    NotFound,
    /// It does not fit what is there: outcomes that came before, items behind the end.
    Invalid,
}

impl JournalError {
    pub(super) fn new(kind: JournalErrorKind, message: impl fmt::Display) -> JournalError {
        JournalError { kind, message: message.to_string() }
    }

    /// Why.
    pub fn kind(&self) -> JournalErrorKind {
        self.kind
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for JournalError {}
