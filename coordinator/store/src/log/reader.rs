//! Reads records.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use farpool_proto::v1::journal_record::Body;
use farpool_proto::v1::{Failure, OpenJob, OpenPool};
use prost::Message;

use super::location::RecordLocation;
use super::record::{HEADER, Lengths, checksum, decode, header_at};
use super::storage::Storage;
use crate::progress::Aside;

/// Reads records, and waits for the disk. It can be used on any thread. All clones read the same journal.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    storage: Arc<dyn Storage>,
}

/// The contents of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RecordContents {
    /// The message that opened a pool.
    Pool(Box<OpenPool>),
    /// The message that opened a job.
    Job(Box<OpenJob>),
    /// Items, in the layout of `farpool.v1.Items`.
    Items {
        /// Index of the first one.
        first: u64,
        /// Their bytes.
        data: Bytes,
        /// The end of each of them.
        ends: Bytes,
    },
    /// Results, in the same layout.
    Done {
        /// Index of the first one.
        first: u64,
        /// Their bytes.
        data: Bytes,
        /// The end of each of them.
        ends: Bytes,
        /// Whether the items count as failed.
        failed: bool,
        /// How many attempts each took; 0: one, or unknown.
        attempts: u32,
    },
    /// Why items failed.
    Failed {
        /// Index of the first one.
        first: u64,
        /// The number of items.
        count: u64,
        /// Why.
        failure: Box<Failure>,
    },
}

/// Why a record was not read.
#[derive(Debug)]
pub(super) enum NotRead {
    /// It was moved: the index has its new location, if it is still kept.
    Moved,
    /// It is not on disk yet, or differs from what was written.
    Damaged(String),
    /// The disk failed.
    Io(io::Error),
}

impl Reader {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Reads the record at a location.
    pub(super) fn read(&self, location: RecordLocation) -> Result<RecordContents, NotRead> {
        let (body, payload) = self.record(location)?;
        let unsound = |error: prost::DecodeError| self.damaged(location, &error.to_string());
        let halves = |count: u64| (payload.slice(..payload.len() - 4 * count as usize), 4 * count as usize);
        Ok(match body {
            Body::PoolOpened(_) => RecordContents::Pool(Box::new(OpenPool::decode(payload).map_err(unsound)?)),
            Body::JobOpened(_) => RecordContents::Job(Box::new(OpenJob::decode(payload).map_err(unsound)?)),
            Body::Items(run) => {
                let (data, ends) = halves(run.count);
                RecordContents::Items { first: run.first, data, ends: payload.slice(payload.len() - ends..) }
            }
            Body::ItemsDone(run) => {
                let (data, ends) = halves(run.count);
                let ends = payload.slice(payload.len() - ends..);
                RecordContents::Done { first: run.first, data, ends, failed: run.failed, attempts: run.attempts }
            }
            Body::ItemsFailed(run) => {
                let failure = Box::new(Failure::decode(payload).map_err(unsound)?);
                RecordContents::Failed { first: run.first, count: run.count, failure }
            }
            _ => return Err(self.damaged(location, "a record of another kind is there")),
        })
    }

    pub(super) fn aside(&self) -> Vec<Aside> {
        self.storage.aside()
    }

    fn record(&self, location: RecordLocation) -> Result<(Body, Bytes), NotRead> {
        let (mut record, lengths) = whole(&*self.storage, location)?;
        let payload = record.split_off(HEADER + lengths.head as usize);
        let body = decode(&record[HEADER..], lengths.payload()).map_err(|why| self.damaged(location, &why))?;
        Ok((body, payload.into()))
    }

    fn damaged(&self, location: RecordLocation, why: &str) -> NotRead {
        damaged(&*self.storage, location, why)
    }
}

/// Returns a record's bytes, if they are as they were written.
pub(super) fn whole(storage: &dyn Storage, location: RecordLocation) -> Result<(Vec<u8>, Lengths), NotRead> {
    let mut record = vec![0; location.length as usize];
    match storage.read(location.segment, location.offset.into(), &mut record) {
        Ok(read) if read == record.len() => {}
        Ok(read) => return Err(damaged(storage, location, &format!("it ends after {read} bytes"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotRead::Moved),
        Err(error) => return Err(NotRead::Io(error)),
    }
    let header: [u8; HEADER] = record[..HEADER].try_into().expect("the record has no header");
    record[..HEADER].copy_from_slice(&header_at(location.segment, location.offset, &header));
    let lengths = Lengths::of(&header);
    let sound = checksum(&record) == header[..8] && u64::from(lengths.all) + HEADER as u64 == location.bytes();
    if !sound || lengths.head > lengths.all {
        return Err(damaged(storage, location, "it has a wrong checksum"));
    }
    Ok((record, lengths))
}

fn damaged(storage: &dyn Storage, location: RecordLocation, why: &str) -> NotRead {
    let (name, offset, length) = (storage.name(location.segment), location.offset, location.length);
    NotRead::Damaged(format!("the record of {length} bytes at byte {offset} of {name} cannot be read: {why}"))
}

impl fmt::Display for NotRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRead::Moved => f.write_str("the record has been moved"),
            NotRead::Damaged(why) => f.write_str(why),
            NotRead::Io(error) => write!(f, "reading a record of the journal: {error}"),
        }
    }
}
