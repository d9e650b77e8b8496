//! Reading what workers have written: outcomes, measurements, and news of themselves.

use farpool_proto::v1::{Failure, FailureKind};
use prost::Message;

use super::WorkerPool;
use super::death::Reason;
use super::worker::{Receiving, State, Worker};
use crate::link::Corrupt;
use crate::link::record::{HEADER_BYTES, Header, Kind};

impl WorkerPool {
    /// Reads everything that the workers have written.
    pub(crate) fn collect_all(&mut self, now: u64) {
        if self.held {
            return;
        }
        for at in 0..self.workers.len() {
            if self.workers[at].may_have_news() && self.collect(at, now).is_err() {
                self.order_end(at, Reason::BrokenLink, now);
            }
        }
    }

    /// Reads everything that one worker has written.
    pub(super) fn collect(&mut self, at: usize, now: u64) -> Result<(), Corrupt> {
        // Not a cheap store if the page is cold, so only where it was armed.
        if self.workers[at].armed_at.take().is_some() {
            self.workers[at].memory.status().agent_awake();
        }
        let before = self.workers[at].from.consumed();
        let outcome = if self.workers[at].broken { Err(Corrupt) } else { self.read_records(at) };
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

    fn read_records(&mut self, at: usize) -> Result<(), Corrupt> {
        while let Some(header) = self.workers[at].next_header()? {
            let record = HEADER_BYTES + header.length as usize;
            match header.kind {
                Kind::Ok => {
                    let worker = &mut self.workers[at];
                    let (slot, item) = worker.finish(header.position).ok_or(Corrupt)?;
                    let chunk = &self.chunks[slot as usize];
                    if !chunk.cancelled {
                        self.report.done(worker.number, chunk, item, &worker.from.bytes()[HEADER_BYTES..record]);
                    }
                    self.settle(slot, 1);
                }
                Kind::Failed => {
                    let mut failure = self.read_failure(at, record)?;
                    failure.stderr = String::new();
                    let (slot, item) = self.workers[at].finish(header.position).ok_or(Corrupt)?;
                    self.tell_failed(slot, item, failure);
                }
                Kind::RunEnd => {
                    let payload = &self.workers[at].from.bytes()[HEADER_BYTES..record];
                    let nanoseconds = u64::from_le_bytes(payload.try_into().map_err(|_| Corrupt)?);
                    let items = self.workers[at].finished.saturating_sub(self.workers[at].measured);
                    self.workers[at].measured = self.workers[at].finished;
                    self.pace.measured(items, nanoseconds);
                    self.report.measured(self.workers[at].number, nanoseconds);
                }
                Kind::Large => self.begin_receiving(at, header)?,
                Kind::Piece => self.receive(at, record)?,
                Kind::Ready => self.became_ready(at, record),
                Kind::InitFailed => {
                    let failure = self.read_failure(at, record)?;
                    self.workers[at].init_failure = Some(failure);
                }
                Kind::Resumed => {
                    self.workers[at].revoking = false;
                    // Something was taken back in vain, maybe, after the worker had passed that place.
                    self.workers[at].memory.status().resume();
                }
                _ => return Err(Corrupt),
            }
            self.workers[at].from.consume(record);
        }
        Ok(())
    }

    fn begin_receiving(&mut self, at: usize, header: Header) -> Result<(), Corrupt> {
        let limit = self.settings.payload_limit;
        let worker = &mut self.workers[at];
        let payload = worker.from.bytes().get(HEADER_BYTES..HEADER_BYTES + 8).ok_or(Corrupt)?;
        let length = u64::from_le_bytes(payload.try_into().map_err(|_| Corrupt)?);
        if length > limit || worker.receiving.is_some() {
            return Err(Corrupt);
        }
        let length = usize::try_from(length).map_err(|_| Corrupt)?;
        worker.receiving = Some(Receiving { position: header.position, length, bytes: Vec::with_capacity(length) });
        Ok(())
    }

    fn receive(&mut self, at: usize, record: usize) -> Result<(), Corrupt> {
        let worker = &mut self.workers[at];
        let receiving = worker.receiving.as_mut().ok_or(Corrupt)?;
        receiving.bytes.extend_from_slice(&worker.from.bytes()[HEADER_BYTES..record]);
        if receiving.bytes.len() < receiving.length {
            // The worker goes on writing while the rest is read.
            return Ok(());
        }
        let Some(received) = worker.receiving.take().filter(|received| received.bytes.len() == received.length) else {
            return Err(Corrupt);
        };
        let (slot, item) = worker.finish(received.position).ok_or(Corrupt)?;
        let chunk = &self.chunks[slot as usize];
        if !chunk.cancelled {
            self.report.done_large(chunk, item, received.bytes);
        }
        self.settle(slot, 1);
        Ok(())
    }

    fn became_ready(&mut self, at: usize, record: usize) {
        let worker = &mut self.workers[at];
        worker.was_ready = true;
        let payload = &worker.from.bytes()[HEADER_BYTES..record];
        worker.claimed_pid = payload.try_into().map_or(0, u32::from_le_bytes);
        if worker.state == State::Starting {
            worker.state = State::Ready;
            self.supervision.starts.worker_serves();
        }
    }

    fn read_failure(&self, at: usize, record: usize) -> Result<Failure, Corrupt> {
        let worker = &self.workers[at];
        let mut failure = Failure::decode(&worker.from.bytes()[HEADER_BYTES..record]).map_err(|_| Corrupt)?;
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
        let header = Header::read(self.from.bytes()).ok_or(Corrupt)?;
        let record = HEADER_BYTES + header.length as usize;
        if self.from.available(record)? < record { Err(Corrupt) } else { Ok(Some(header)) }
    }

    /// Notes that the item at `position` is finished; returns its chunk's slot and which item of the job it is.
    fn finish(&mut self, position: u32) -> Option<(u32, u64)> {
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
