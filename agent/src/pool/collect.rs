//! Reads what workers have written: outcomes, measurements and state changes.
//!
//! A worker can write to the shared memory at any time, even to records that it has published. So each record is copied
//! once (its header here, its payload where it is used), and only the copy is checked and used. The status page
//! consists of atomics, each loaded once per use. Invalid data ends that worker and nothing else.
//!
//! The amount read in one turn is bounded, so that a worker that writes without end delays nobody else.

use farpool_link::record::{HEADER_BYTES, Header, Kind};
use farpool_link::{Corrupt, RING_BYTES};
use farpool_proto::v1::{Failure, FailureKind};
use prost::Message;

use super::WorkerPool;
use super::death::Reason;
use super::worker::{State, Worker};

/// Most records of one worker that are read in a turn.
const MAX_RECORDS: usize = 16 << 10;
/// Most bytes of one worker that are read in a turn.
const MAX_BYTES: u64 = RING_BYTES as u64;
/// Most records that a ring can hold.
const MAX_RING_RECORDS: usize = RING_BYTES / HEADER_BYTES;

impl WorkerPool {
    /// Reads what the workers have written, up to a bound for each. [`WorkerPool::arm`] reports whether there is more.
    pub(crate) fn collect_all(&mut self, now: u64) {
        if self.held {
            return;
        }
        for at in 0..self.workers.len() {
            if self.workers[at].may_have_records() && self.collect(at, MAX_RECORDS, now).is_err() {
                self.terminate(at, Reason::BrokenLink, now);
            }
        }
    }

    /// Reads what an exited worker has written.
    pub(super) fn collect_remaining(&mut self, at: usize, now: u64) {
        // A corrupt record is ignored, with all that follows.
        let _ = self.collect(at, MAX_RING_RECORDS, now);
    }

    /// Reads up to `records` records of one worker.
    fn collect(&mut self, at: usize, records: usize, now: u64) -> Result<(), Corrupt> {
        // The store is expensive if the page is cold, so only where it was armed.
        if self.workers[at].armed_at.take().is_some() {
            self.workers[at].memory.status().agent_awake();
        }
        let before = self.workers[at].from.consumed();
        let outcome = if self.workers[at].broken { Err(Corrupt) } else { self.read_records(at, records) };
        let worker = &mut self.workers[at];
        worker.broken |= outcome.is_err();
        if worker.from.consumed() != before {
            worker.release_read();
        }
        let progress = (worker.finished, worker.memory.status().claimed());
        if progress.0 != worker.progress.0 {
            self.supervision.starts.item_finished(worker.requested_at);
        }
        if progress != (worker.progress.0, worker.progress.1) {
            worker.progress = (progress.0, progress.1, now);
        }
        if self.may_lend {
            self.update_lending(at);
        }
        outcome
    }

    fn read_records(&mut self, at: usize, records: usize) -> Result<(), Corrupt> {
        let until = self.workers[at].from.consumed() + MAX_BYTES;
        for _ in 0..records {
            let Some(header) = self.workers[at].next_header()? else { break };
            self.read_record(at, header)?;
            let worker = &mut self.workers[at];
            worker.from.consume(HEADER_BYTES + header.length as usize);
            if worker.from.consumed() >= until {
                break;
            }
        }
        Ok(())
    }

    fn read_record(&mut self, at: usize, header: Header) -> Result<(), Corrupt> {
        let length = header.length as usize;
        match header.kind {
            Kind::Ok => {
                let worker = &mut self.workers[at];
                let (slot, item) = worker.finish(header.position).ok_or(Corrupt)?;
                let chunk = &self.chunks[slot as usize];
                if !chunk.cancelled {
                    self.report.done(worker.number, chunk, item, &worker.from, length, header.slot == 1)?;
                }
                self.settle(slot, 1);
            }
            Kind::Failed => {
                let mut failure = self.read_failure(at, length)?;
                failure.stderr = String::new();
                let (slot, item) = self.workers[at].finish(header.position).ok_or(Corrupt)?;
                self.report_failed(slot, item, failure);
            }
            Kind::RunEnd => {
                let worker = &mut self.workers[at];
                let nanoseconds = u64::from_le_bytes(worker.payload(header)?);
                worker.run_ends += 1;
                // A run has at least one item.
                if worker.run_ends > worker.finished {
                    return Err(Corrupt);
                }
                let items = worker.finished.saturating_sub(worker.measured);
                worker.measured = worker.finished;
                self.pace.measured(items, nanoseconds);
                self.report.measured(worker.number, nanoseconds);
            }
            Kind::Large => self.begin_receiving(at, header)?,
            Kind::Piece => self.receive(at, length)?,
            Kind::Ready => self.became_ready(at, header)?,
            Kind::InitFailed => {
                let worker = &self.workers[at];
                if worker.was_ready || worker.init_failure.is_some() {
                    return Err(Corrupt);
                }
                let failure = self.read_failure(at, length)?;
                self.workers[at].init_failure = Some(failure);
            }
            Kind::Resumed => {
                let worker = &mut self.workers[at];
                if !std::mem::take(&mut worker.revoking) {
                    return Err(Corrupt);
                }
                // The worker may have passed that position before the items were taken back.
                worker.memory.status().resume();
            }
            _ => return Err(Corrupt),
        }
        Ok(())
    }

    fn became_ready(&mut self, at: usize, header: Header) -> Result<(), Corrupt> {
        let worker = &mut self.workers[at];
        if std::mem::replace(&mut worker.was_ready, true) {
            return Err(Corrupt);
        }
        worker.reported_pid = worker.payload(header).map_or(0, u32::from_le_bytes);
        if worker.state == State::Starting {
            worker.state = State::Ready;
            self.supervision.starts.worker_ready();
        }
        Ok(())
    }

    fn read_failure(&self, at: usize, length: usize) -> Result<Failure, Corrupt> {
        let worker = &self.workers[at];
        let mut copy = Vec::with_capacity(length);
        worker.from.copy_into(HEADER_BYTES, length, &mut copy).ok_or(Corrupt)?;
        let mut failure = Failure::decode(&*copy).map_err(|_| Corrupt)?;
        if failure.kind() == FailureKind::Unspecified {
            return Err(Corrupt);
        }
        failure.host.clone_from(&self.host.name);
        failure.pid = worker.known_pid();
        Ok(failure)
    }

    /// Reports that an item has failed, as far as its worker can tell.
    pub(super) fn report_failed(&mut self, slot: u32, item: u64, failure: Failure) {
        let chunk = &self.chunks[slot as usize];
        if !chunk.cancelled {
            self.report.failed(chunk, item, failure);
        }
        self.settle(slot, 1);
    }
}

impl Worker {
    /// Returns whether it may have written something: it has items, or is not ready yet.
    pub(super) fn may_have_records(&self) -> bool {
        if self.broken {
            return false;
        }
        !self.given.is_empty() || self.revoking || !matches!(self.state, State::Ready) || self.measured != self.finished
    }

    /// Returns the header of the next record, if there is one. The whole record is then available.
    fn next_header(&mut self) -> Result<Option<Header>, Corrupt> {
        if self.from.available(HEADER_BYTES)? < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::read(&self.from.copy::<HEADER_BYTES>(0).ok_or(Corrupt)?).ok_or(Corrupt)?;
        let record = HEADER_BYTES + header.length as usize;
        if self.from.available(record)? < record { Err(Corrupt) } else { Ok(Some(header)) }
    }

    /// Returns the payload of the front record, which must have exactly this size.
    pub(super) fn payload<const N: usize>(&self, header: Header) -> Result<[u8; N], Corrupt> {
        if header.length as usize != N {
            return Err(Corrupt);
        }
        self.from.copy(HEADER_BYTES).ok_or(Corrupt)
    }

    /// Marks the item at `position` as finished. Returns its chunk's slot and its index in the job.
    pub(super) fn finish(&mut self, position: u32) -> Option<(u32, u64)> {
        // Nearly always the first: only workers with several threads finish out of order.
        let at = self.given.iter().position(|given| given.next() == position && given.left() > 0)?;
        let given = &mut self.given[at];
        let finished = (given.chunk, given.item_at(position)?);
        given.done += 1;
        if given.left() == 0 {
            if at == 0 {
                self.given.pop_front()
            } else {
                self.given.remove(at)
            };
        }
        self.finished += 1;
        self.cancel_at = self.cancel_at.filter(|_| !self.given.is_empty());
        Some(finished)
    }
}
