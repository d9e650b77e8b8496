//! Reads what a worker has written: outcomes, measurements and changes of its stage.
//!
//! A worker can write to the shared memory at any time, even to records that it has published. So each record is copied
//! once (its header here, its payload where it is used), and only the copy is checked and used. The status page
//! consists of atomics, each loaded once per use. Invalid data ends that worker and nothing else.

use farpool_link::Corrupt;
use farpool_link::record::{HEADER_BYTES, Header, Kind};
use farpool_proto::v1::{Failure, FailureKind};
use prost::Message;

use super::super::results::RunResults;
use super::super::round::Round;
use super::Worker;
use super::items::{Due, Finished};
use super::life::Stage;
use super::receiving::Receiving;

/// A record that a worker has written, checked and applied to the worker.
#[derive(Debug)]
pub(in crate::pool) enum Record {
    /// Items are done, from this one on. [`Worker::take_results`] takes their results.
    Done(FirstDone),
    /// An item is done, and its result came in pieces.
    DoneInPieces { item: Finished, result: Vec<u8>, failed: bool },
    /// An item has failed, as its worker reports.
    Failed { item: Finished, failure: Box<Failure> },
    /// The latest items took that long.
    Measured { items: u64, nanoseconds: u64 },
    /// The worker takes items from now on.
    Ready,
    /// A record without any other effect.
    Applied,
}

/// An item that is done, and the header of its record.
#[derive(Clone, Copy, Debug)]
pub(in crate::pool) struct FirstDone {
    header: Header,
    due: Due,
}

impl FirstDone {
    pub(in crate::pool) fn item(&self) -> Finished {
        self.due.item
    }

    /// Returns whether it counts as failed.
    pub(in crate::pool) fn failed(&self) -> bool {
        self.header.tag == 1
    }
}

impl Worker {
    /// Returns whether it may have written something: it has items, or is not ready yet.
    pub(in crate::pool) fn may_have_records(&self) -> bool {
        !self.link.is_broken() && (self.items.awaits_records() || self.life.stage() != Stage::Ready)
    }

    /// Begins to read its records.
    ///
    /// # Errors
    /// If it has written invalid data before.
    pub(in crate::pool) fn begin_reading(&mut self) -> Result<(), Corrupt> {
        self.link.begin_reading()
    }

    /// Returns how many bytes of it were read so far.
    pub(in crate::pool) fn consumed(&self) -> u64 {
        self.link.records.consumed()
    }

    /// Reads the next record, if there is one.
    #[inline]
    pub(in crate::pool) fn next_record(&mut self, round: &Round) -> Result<Option<Record>, Corrupt> {
        let Some(header) = self.link.records.next_header()? else { return Ok(None) };
        if header.kind == Kind::Ok {
            return Ok(Some(Record::Done(FirstDone { header, due: self.items.due(header.position)? })));
        }
        let record = self.other_record(header, round)?;
        self.link.records.consume();
        Ok(Some(record))
    }

    /// Moves results to `results`: that of `first`, and those of the items after it that are done as well. Returns how many,
    /// at most `most`.
    #[inline]
    pub(in crate::pool) fn take_results(
        &mut self,
        first: FirstDone,
        most: u32,
        results: &mut RunResults<'_>,
    ) -> Result<u32, Corrupt> {
        let taken = self.link.records.take_results(first.header, first.due.count.min(most), results)?;
        self.items.finish_run(first.due, taken);
        Ok(taken)
    }

    fn other_record(&mut self, header: Header, round: &Round) -> Result<Record, Corrupt> {
        match header.kind {
            Kind::RunEnd => {
                let nanoseconds = u64::from_le_bytes(self.link.records.payload()?);
                return Ok(Record::Measured { items: self.items.measure()?, nanoseconds });
            }
            Kind::Failed => {
                let mut failure = self.read_failure(round)?;
                failure.stderr = String::new();
                return Ok(Record::Failed { item: self.items.finish(header.position)?, failure: Box::new(failure) });
            }
            Kind::Large => self.begin_receiving(header, round.settings.payload_limit)?,
            Kind::Piece => return self.receive(round),
            Kind::Ready => {
                let pid = self.link.records.payload().map_or(0, u32::from_le_bytes);
                if self.life.became_ready(pid)? {
                    return Ok(Record::Ready);
                }
            }
            Kind::InitFailed => {
                if !self.life.initializes() {
                    return Err(Corrupt);
                }
                let failure = self.read_failure(round)?;
                self.life.initializer_failed(failure);
            }
            Kind::Resumed => {
                if !self.items.end_revoking() {
                    return Err(Corrupt);
                }
                // The worker may have passed that position before the items were taken back.
                self.link.status().resume();
            }
            _ => return Err(Corrupt),
        }
        Ok(Record::Applied)
    }

    /// Releases what was read since `before`. `corrupt`: it has written invalid data, and nothing more is read. Returns
    /// when the worker was requested, if it has finished items.
    pub(in crate::pool) fn end_reading(&mut self, before: u64, corrupt: bool, now: u64) -> Option<u64> {
        self.link.end_reading(before, corrupt);
        self.items.observe(self.link.status(), now).then(|| self.life.requested_at())
    }

    fn read_failure(&self, round: &Round) -> Result<Failure, Corrupt> {
        let (ring, length) = self.link.records.front();
        let mut copy = Vec::with_capacity(length);
        ring.copy_into(HEADER_BYTES, length, &mut copy).ok_or(Corrupt)?;
        let mut failure = Failure::decode(&*copy).map_err(|_| Corrupt)?;
        if failure.kind() == FailureKind::Unspecified {
            return Err(Corrupt);
        }
        failure.host.clone_from(&round.host.name);
        failure.pid = self.known_pid();
        Ok(failure)
    }

    fn begin_receiving(&mut self, header: Header, payload_limit: u64) -> Result<(), Corrupt> {
        let length = u64::from_le_bytes(self.link.records.payload()?);
        let receiving = self.items.receiving();
        if length == 0 || length > payload_limit || receiving.is_some() {
            return Err(Corrupt);
        }
        *receiving = Some(Receiving::new(header.position, header.tag == 1, length));
        Ok(())
    }

    fn receive(&mut self, round: &Round) -> Result<Record, Corrupt> {
        let receiving = self.items.receiving();
        let partial = receiving.as_mut().ok_or(Corrupt)?;
        self.link.records.receive(partial)?;
        if !partial.is_whole() {
            // The worker keeps writing while the rest is read.
            return Ok(Record::Applied);
        }
        let Some(Receiving { position, failed, length, bytes, .. }) = receiving.take() else {
            return Err(Corrupt);
        };
        let item = self.items.finish(position)?;
        if let Some(result) = bytes {
            return Ok(Record::DoneInPieces { item, result, failed });
        }
        let message = format!(
            "the result is {length} bytes long, and the agent on this host could not allocate that much memory: return less, or run fewer such items at once"
        );
        let mut failure = round.failure(FailureKind::PayloadTooLarge, message);
        failure.pid = self.known_pid();
        Ok(Record::Failed { item, failure: Box::new(failure) })
    }
}
