//! The thread that writes: the journal's owner never waits for the disk.
//!
//! It takes all batches that are there, writes them, and makes them durable together. If that fails, the batches are kept, and all of
//! them are written again, from the first byte: what the system could not write it may have dropped, and a later sync would
//! not tell. Everything before them was durable, and stays.

use std::io::{self, IoSlice};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farpool_proto::v1::JournalRecord;
use farpool_proto::v1::journal_record::{Body, Filler};
use prost::Message;
use tokio::sync::Notify;

use super::batch::{Batch, Step};
use super::place::Place;
use super::reader::{ReadError, whole};
use super::record::{HEADER, checksum, placed};
use super::segment::header;
use super::storage::Storage;

/// How long it waits before it tries again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Bytes that are written before they are made durable, however much there is: somebody waits for the first of them.
const AT_ONCE: u64 = 32 << 20;

/// A batch, and what is durable when it is.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) batch: Batch,
    pub(super) number: u64,
}

/// What the thread has to tell.
#[derive(Debug, Default)]
pub(super) struct Shared {
    report: Mutex<Report>,
    changed: Condvar,
    pub(super) notify: Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) durable: u64,
    /// Why nothing can be written.
    pub(super) failed: Option<Arc<str>>,
    /// Records that could not be copied, and why.
    pub(super) unreadable: Vec<(Place, String)>,
    /// The owner is going.
    stopping: bool,
    /// The thread has ended.
    gone: bool,
}

impl Shared {
    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread try once more, and then no longer.
    pub(super) fn stop(&self) {
        self.report().stopping = true;
        self.changed.notify_all();
    }

    /// Waits until so much is durable, or it fails; says whether it is.
    pub(super) fn wait_for(&self, number: u64) -> bool {
        let over = |report: &mut Report| report.durable < number && report.failed.is_none() && !report.gone;
        let report = self.changed.wait_while(self.report(), over).unwrap_or_else(PoisonError::into_inner);
        report.durable >= number
    }

    fn tell(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report());
        self.changed.notify_all();
        self.notify.notify_one();
    }

    /// Waits a while; says whether it is the last try that follows.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.report(), time, |report| !report.stopping);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

/// However the thread ends, nobody waits for it any more.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.tell(|report| {
            report.gone = true;
            report.failed.get_or_insert_with(|| "its thread has ended".into());
        });
    }
}

/// Writes until there is nobody any more who could send something.
pub(super) fn run(storage: &dyn Storage, batches: &Receiver<Handed>, shared: &Arc<Shared>) {
    let _gone = Gone(Arc::clone(shared));
    while let Some(mut group) = gather(batches) {
        let number = group.last().map_or(0, |handed| handed.number);
        group.iter_mut().for_each(|handed| handed.batch.seal());
        let (mut wait, mut last_try) = (FIRST_WAIT, false);
        loop {
            match write(storage, &group) {
                Ok(unreadable) => {
                    shared.tell(|report| {
                        (report.durable, report.failed) = (number, None);
                        report.unreadable.extend(unreadable);
                    });
                    break;
                }
                Err(error) => shared.tell(|report| report.failed = Some(error.to_string().into())),
            }
            if last_try {
                return;
            }
            last_try = shared.pause(wait);
            wait = (2 * wait).min(LONGEST_WAIT);
        }
    }
}

/// All that is there, if it is not too much; none: nothing will come any more.
fn gather(batches: &Receiver<Handed>) -> Option<Vec<Handed>> {
    let first = batches.recv().ok()?;
    let mut bytes = first.batch.bytes;
    let mut group = vec![first];
    while bytes < AT_ONCE
        && let Ok(next) = batches.try_recv()
    {
        bytes += next.batch.bytes;
        group.push(next);
    }
    Some(group)
}

/// Writes what was gathered and makes it durable. Returns what could not be copied. It may be called again.
fn write(storage: &dyn Storage, group: &[Handed]) -> io::Result<Vec<(Place, String)>> {
    let (mut written, mut removed, mut unreadable) = (None, Vec::new(), Vec::new());
    for step in group.iter().flat_map(|handed| &handed.batch.steps) {
        match step {
            Step::Create(segment) => {
                // What is in a segment counts only if everything before it does.
                written.take().map_or(Ok(()), |before| storage.sync(before))?;
                storage.create(*segment)?;
                storage.write(*segment, 0, &mut [IoSlice::new(&header(*segment))])?;
                written = Some(*segment);
            }
            Step::Write(chunk) => {
                storage.write(chunk.segment, chunk.offset.into(), &mut chunk.slices())?;
                written = Some(chunk.segment);
            }
            Step::Copy { from, to } => {
                let record = copy(storage, *from, *to).unwrap_or_else(|error| {
                    unreadable.push((*from, error.to_string()));
                    filler(*to)
                });
                storage.write(to.segment, to.offset.into(), &mut [IoSlice::new(&record)])?;
                written = Some(to.segment);
            }
            Step::Remove(segment) => removed.push(*segment),
        }
    }
    written.map_or(Ok(()), |segment| storage.sync(segment))?;
    removed.into_iter().try_for_each(|segment| storage.remove(segment))?;
    Ok(unreadable)
}

/// A record as it is to be at another place.
fn copy(storage: &dyn Storage, from: Place, to: Place) -> Result<Vec<u8>, ReadError> {
    let (record, _) = whole(storage, from)?;
    Ok(seal(record, to))
}

/// What is put where a record cannot be copied to: something has to be there.
fn filler(to: Place) -> Vec<u8> {
    let mut record = vec![0; HEADER];
    let head = JournalRecord { body: Some(Body::Filler(Filler {})) }.encode(&mut record);
    head.expect("a vector has room");
    let head = (record.len() - HEADER) as u32;
    record[8..12].copy_from_slice(&(to.length - HEADER as u32).to_le_bytes());
    record[12..HEADER].copy_from_slice(&head.to_le_bytes());
    record.resize(to.length as usize, 0);
    seal(record, to)
}

/// Gives a whole record the checksum that it has at a place.
fn seal(mut record: Vec<u8>, at: Place) -> Vec<u8> {
    let header: [u8; HEADER] = record[..HEADER].try_into().expect("a record has a header");
    record[..HEADER].copy_from_slice(&placed(at.segment, at.offset, &header));
    let sum = checksum(&record);
    record[..8].copy_from_slice(&sum);
    record
}
