//! Reading what workers have written: outcomes, measurements, and news of themselves.
//!
//! A worker can write to the shared memory at any time, also to what it has handed over. So each record is copied once
//! (its header here, its payload where it is used), and only the copy is checked and believed; the status page consists of
//! atomics, each of which is loaded once for each use. What cannot be ends the worker, and nothing else.
//!
//! What is read in one turn is bounded, so that a worker that writes without end keeps nobody else waiting.

use farpool_link::record::{HEADER_BYTES, Header, Kind};
use farpool_link::{Corrupt, RING_BYTES};
use farpool_proto::v1::{Failure, FailureKind};
use prost::Message;

use super::WorkerPool;
use super::death::Reason;
use super::worker::{State, Worker};

/// Records of one worker that are read in a turn.
const RECORDS: usize = 16 << 10;
/// Bytes of one worker that are read in a turn.
const BYTES: u64 = RING_BYTES as u64;
/// As many records as a ring can hold.
const WHOLE_RING: usize = RING_BYTES / HEADER_BYTES;

impl WorkerPool {
    /// Reads what the workers have written, up to a bound for each. If more is left, [`WorkerPool::arm`] says so.
    pub(crate) fn collect_all(&mut self, now: u64) {
        if self.held {
            return;
        }
        for at in 0..self.workers.len() {
            if self.workers[at].may_have_news() && self.collect(at, RECORDS, now).is_err() {
                self.order_end(at, Reason::BrokenLink, now);
            }
        }
    }

    /// Reads what a worker that has ended wrote before.
    pub(super) fn collect_the_rest(&mut self, at: usize, now: u64) {
        // A garbled end of it does not count.
        let _ = self.collect(at, WHOLE_RING, now);
    }

    /// Reads what one worker has written, up to so many records.
    fn collect(&mut self, at: usize, records: usize, now: u64) -> Result<(), Corrupt> {
        // Not a cheap store if the page is cold, so only where it was armed.
        if self.workers[at].armed_at.take().is_some() {
            self.workers[at].memory.status().agent_awake();
        }
        let before = self.workers[at].from.consumed();
        let outcome = if self.workers[at].broken { Err(Corrupt) } else { self.read_records(at, records) };
        let worker = &mut self.workers[at];
        worker.broken |= outcome.is_err();
        if worker.from.consumed() != before {
            worker.hand_back();
        }
        let progress = (worker.finished, worker.memory.status().claimed());
        if progress.0 != worker.progress.0 {
            self.supervision.starts.item_finished(worker.born);
        }
        if progress != (worker.progress.0, worker.progress.1) {
            worker.progress = (progress.0, progress.1, now);
        }
        if self.any_waits {
            self.note_lending(at);
        }
        outcome
    }

    fn read_records(&mut self, at: usize, records: usize) -> Result<(), Corrupt> {
        let until = self.workers[at].from.consumed() + BYTES;
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
                self.tell_failed(slot, item, failure);
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
                // Something was taken back in vain, maybe, after the worker had passed that place.
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
        worker.claimed_pid = worker.payload(header).map_or(0, u32::from_le_bytes);
        if worker.state == State::Starting {
            worker.state = State::Ready;
            self.supervision.starts.worker_serves();
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

    /// An item has failed for good, as far as its worker can tell.
    pub(super) fn tell_failed(&mut self, slot: u32, item: u64, failure: Failure) {
        let chunk = &self.chunks[slot as usize];
        if !chunk.cancelled {
            self.report.failed(chunk, item, failure);
        }
        self.settle(slot, 1);
    }
}

impl Worker {
    /// Whether it may have written something: it was given something to do, or has not said yet that it is ready.
    pub(super) fn may_have_news(&self) -> bool {
        if self.broken {
            return false;
        }
        !self.given.is_empty() || self.revoking || !matches!(self.state, State::Ready) || self.measured != self.finished
    }

    /// The header of the next record, if one is there; the record is there as a whole.
    fn next_header(&mut self) -> Result<Option<Header>, Corrupt> {
        if self.from.available(HEADER_BYTES)? < HEADER_BYTES {
            return Ok(None);
        }
        let header = Header::read(&self.from.copy::<HEADER_BYTES>(0).ok_or(Corrupt)?).ok_or(Corrupt)?;
        let record = HEADER_BYTES + header.length as usize;
        if self.from.available(record)? < record { Err(Corrupt) } else { Ok(Some(header)) }
    }

    /// The payload of the record at the front, which must have just this size.
    pub(super) fn payload<const N: usize>(&self, header: Header) -> Result<[u8; N], Corrupt> {
        if header.length as usize != N {
            return Err(Corrupt);
        }
        self.from.copy(HEADER_BYTES).ok_or(Corrupt)
    }

    /// Notes that the item at `position` is finished; returns its chunk's slot and which item of the job it is.
    pub(super) fn finish(&mut self, position: u32) -> Option<(u32, u64)> {
        // Nearly always the first: only a worker with several threads finishes out of order.
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
