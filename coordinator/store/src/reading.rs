//! Results of reading a store.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bytes::Bytes;
use farpool_proto::v1::{Failure, OpenJob, OpenPool};

/// A read, which happens when this is awaited.
#[must_use]
pub struct Reading<T> {
    bytes: u64,
    result: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Reading<T> {
    /// `bytes`: roughly the memory that the result will take.
    pub fn new(bytes: u64, result: impl Future<Output = T> + Send + 'static) -> Self {
        Self { bytes, result: Box::pin(result) }
    }

    /// Returns roughly the memory that the result will take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl<T> IntoFuture for Reading<T> {
    type Output = T;
    type IntoFuture = Pin<Box<dyn Future<Output = T> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        self.result
    }
}

impl<T> fmt::Debug for Reading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The messages that opened a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// Its pool.
    pub pool: Box<OpenPool>,
    /// The job in that pool.
    pub job: Box<OpenJob>,
}

/// Parts of a job, in the order of its items. There may be fewer than were asked for, or none: it ends before parts
/// that are no longer needed.
#[derive(Debug)]
pub struct Read<T> {
    /// What was read.
    pub parts: Vec<T>,
    /// The next part, if it cannot be read.
    pub unread: Option<Unread>,
}

/// Items, or their outcomes, that cannot be read.
#[derive(Debug)]
pub struct Unread {
    /// Index of the first one.
    pub first: u64,
    /// The number of items.
    pub count: u64,
    /// Why not.
    pub error: ReadError,
}

/// Consecutive items, in the layout of `farpool.v1.Items`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    /// Index of the first one.
    pub first: u64,
    /// The number of items.
    pub count: u64,
    /// Their bytes.
    pub data: Bytes,
    /// The end of each of them.
    pub ends: Bytes,
}

/// Outcomes of consecutive items.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcomes {
    /// Results, in the layout of `farpool.v1.ItemsDone`.
    Done {
        /// Index of the first one.
        first: u64,
        /// The number of items.
        count: u64,
        /// Their bytes.
        data: Bytes,
        /// The end of each of them.
        ends: Bytes,
        /// Whether the items count as failed.
        failed: bool,
        /// How many attempts each took; 0: one, or unknown.
        attempts: u32,
    },
    /// Why they failed.
    Failed {
        /// Index of the first one.
        first: u64,
        /// The number of items.
        count: u64,
        /// Why.
        failure: Box<Failure>,
    },
}

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It is lost: missing, or different from what was written.
    Lost(String),
    /// It cannot be read for now.
    Unavailable(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Lost(why) => f.write_str(why),
            ReadError::Unavailable(why) => write!(f, "reading a record of the journal: {why}"),
        }
    }
}

impl std::error::Error for ReadError {}
