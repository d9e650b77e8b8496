//! What is written and made durable together: all batches that were there, as steps that are taken one by one.
//!
//! Should one fail, all of them are taken again, from the first one: what the system could not write it may have dropped, and a
//! later sync would not tell. Everything before them was durable, and stays.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::slice;

use farpool_proto::v1::JournalRecord;
use farpool_proto::v1::journal_record::{Body, Filler};
use prost::Message;

use super::batch::Step;
use super::place::Place;
use super::reader::{ReadError, whole};
use super::record::{HEADER, checksum, placed};
use super::segment::header;
use super::storage::Storage;
use super::writer::Handed;

/// Bytes that are written before they are made durable, however much there is: somebody waits for the first of them.
const AT_ONCE: u64 = 32 << 20;

#[derive(Debug)]
pub(super) struct Group {
    steps: Vec<Step>,
    /// What is durable when it is.
    pub(super) number: u64,
}

impl Group {
    /// A first batch and all further ones that are there, if it is not too much.
    pub(super) fn gather(first: Handed, mut next: impl FnMut() -> Option<Handed>) -> Self {
        let (mut group, mut bytes) = (Self { steps: Vec::new(), number: 0 }, 0);
        let mut handed = Some(first);
        while let Some(Handed { mut batch, number }) = handed {
            batch.seal();
            bytes += batch.bytes;
            group.number = number;
            group.steps.append(&mut batch.steps);
            handed = if bytes < AT_ONCE { next() } else { None };
        }
        group
    }

    /// From the first step on.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        Attempt { steps: self.steps.iter(), written: None, removed: VecDeque::new(), unreadable: Vec::new() }
    }
}

/// One attempt to write a group.
pub(super) struct Attempt<'a> {
    steps: slice::Iter<'a, Step>,
    /// The segment that was written to and is not durable.
    written: Option<u32>,
    /// Segments that go when all the rest is durable.
    removed: VecDeque<u32>,
    /// What could not be copied, and why.
    pub(super) unreadable: Vec<(Place, String)>,
}

impl Attempt<'_> {
    /// Takes the next step; says whether there was one.
    pub(super) fn step(&mut self, storage: &dyn Storage) -> io::Result<bool> {
        match self.steps.next() {
            Some(Step::Create(segment)) => {
                // What is in a segment counts only if everything before it does.
                self.sync(storage)?;
                storage.create(*segment)?;
                storage.write(*segment, 0, &mut [IoSlice::new(&header(*segment))])?;
                self.written = Some(*segment);
            }
            Some(Step::Write(chunk)) => {
                storage.write(chunk.segment, chunk.offset.into(), &mut chunk.slices())?;
                self.written = Some(chunk.segment);
            }
            Some(Step::Copy { from, to }) => {
                let record = copy(storage, *from, *to).unwrap_or_else(|error| {
                    self.unreadable.push((*from, error.to_string()));
                    filler(*to)
                });
                storage.write(to.segment, to.offset.into(), &mut [IoSlice::new(&record)])?;
                self.written = Some(to.segment);
            }
            Some(Step::Remove(segment)) => self.removed.push_back(*segment),
            None if self.written.is_some() => self.sync(storage)?,
            None => match self.removed.pop_front() {
                Some(segment) => storage.remove(segment)?,
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    fn sync(&mut self, storage: &dyn Storage) -> io::Result<()> {
        self.written.take().map_or(Ok(()), |segment| storage.sync(segment))
    }
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
