//! What is read of a store.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bytes::Bytes;
use farpool_proto::v1::{Failure, OpenJob, OpenPool};

/// Something that is being read, by whoever awaits this.
#[must_use]
pub struct Reading<T> {
    bytes: u64,
    result: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Reading<T> {
    /// `bytes`: what it will take up in memory, about.
    pub fn new(bytes: u64, result: impl Future<Output = T> + Send + 'static) -> Self {
        Self { bytes, result: Box::pin(result) }
    }

    /// Bytes that it will take up in memory, about.
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

/// What a job was opened with.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// Its pool.
    pub pool: Box<OpenPool>,
    /// The job in that.
    pub job: Box<OpenJob>,
}

/// Parts of a job, in the order of its items. There may be fewer than were asked for, or none: what is not wanted any more is left
/// out, and all behind it.
#[derive(Debug)]
pub struct Read<T> {
    /// What was read.
    pub parts: Vec<T>,
    /// What comes next and cannot be read.
    pub unread: Option<Unread>,
}

/// Items, or their outcomes, that cannot be read.
#[derive(Debug)]
pub struct Unread {
    /// Index of the first one.
    pub first: u64,
    /// How many there are.
    pub count: u64,
    /// Why not.
    pub error: ReadError,
}

/// Consecutive items, in the layout of `farpool.v1.Items`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items {
    /// Index of the first one.
    pub first: u64,
    /// How many there are.
    pub count: u64,
    /// Their bytes.
    pub data: Bytes,
    /// Where each of them ends.
    pub ends: Bytes,
}

/// Outcomes of consecutive items.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcomes {
    /// Results, in the layout of `farpool.v1.ItemsDone`.
    Done {
        /// Index of the first one.
        first: u64,
        /// How many there are.
        count: u64,
        /// Their bytes.
        data: Bytes,
        /// Where each of them ends.
        ends: Bytes,
        /// The items count as failed.
        failed: bool,
        /// How many attempts each took; 0: one, or not known.
        attempts: u32,
    },
    /// Why they failed.
    Failed {
        /// Index of the first one.
        first: u64,
        /// How many there are.
        count: u64,
        /// Why.
        failure: Box<Failure>,
    },
}

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It is lost: not there, or not what was written.
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
