//! The two rings of a [`Memory`]: one writer and one reader each, in different processes.
//!
//! Positions count bytes since the start and never wrap (2^64 bytes); a position modulo the ring's size is
//! where it lies. The writer owns what lies between `written` and `read + RING_BYTES`, the reader what lies
//! between `read` and `written`; each hands bytes over by storing its position with release, and takes them by
//! loading the other's with acquire. A position read from the other process is checked before it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::{Direction, Memory, RING_BYTES};

/// The other side wrote a position that cannot be: the session with it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// The writing end of a ring.
#[derive(Debug)]
pub struct Writer {
    memory: Arc<Memory>,
    direction: Direction,
    written: u64,
    /// The reader's position when it was last looked at.
    read: u64,
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Reader {
    memory: Arc<Memory>,
    direction: Direction,
    read: u64,
    /// The writer's position when it was last looked at.
    written: u64,
}

impl Writer {
    /// The writing end of `direction`; there must be one only.
    pub fn new(memory: Arc<Memory>, direction: Direction) -> Writer {
        Writer { memory, direction, written: 0, read: 0 }
    }

    /// How many bytes can be written now. Looks at the reader's position only when fewer than `wanted` are known.
    pub fn room(&mut self, wanted: usize) -> Result<usize, Corrupt> {
        if self.known_room() < wanted {
            let read = positions(&self.memory, self.direction).1.load(Ordering::Acquire);
            if read < self.read || read > self.written {
                return Err(Corrupt);
            }
            self.read = read;
        }
        Ok(self.known_room())
    }

    fn known_room(&self) -> usize {
        // written - read <= RING_BYTES always holds, see `advance` and `room`.
        RING_BYTES - offset(self.written - self.read)
    }

    /// The room that is known (see [`Writer::room`]), to write into; contiguous.
    pub fn space(&mut self) -> &mut [u8] {
        let start = self.memory.ring(self.direction);
        let length = self.known_room();
        // SAFETY: the ring is mapped twice in a row, so `length <= RING_BYTES` bytes from any place in the first
        // copy are mapped. The bytes between `written` and `read + RING_BYTES` belong to the one writer, which
        // is borrowed mutably; the reader does not touch them before it sees a larger `written`.
        unsafe { std::slice::from_raw_parts_mut(start.add(place(self.written)).as_ptr(), length) }
    }

    /// The next `bytes` bytes of the space have been filled in. The reader sees them after [`Writer::publish`].
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.known_room(), "only what was room can have been written");
        self.written += bytes as u64;
    }

    /// Hands everything that was written to the reader.
    pub fn publish(&mut self) {
        positions(&self.memory, self.direction).0.store(self.written, Ordering::Release);
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Reader {
    /// The reading end of `direction`; there must be one only.
    pub fn new(memory: Arc<Memory>, direction: Direction) -> Reader {
        Reader { memory, direction, read: 0, written: 0 }
    }

    /// How many bytes can be read now. Looks at the writer's position only when fewer than `wanted` are known.
    pub fn available(&mut self, wanted: usize) -> Result<usize, Corrupt> {
        if self.known() < wanted {
            let written = positions(&self.memory, self.direction).0.load(Ordering::Acquire);
            if written < self.written || written - self.read > RING_BYTES as u64 {
                return Err(Corrupt);
            }
            self.written = written;
        }
        Ok(self.known())
    }

    fn known(&self) -> usize {
        offset(self.written - self.read)
    }

    /// What is known to be there (see [`Reader::available`]); contiguous.
    pub fn bytes(&self) -> &[u8] {
        let start = self.memory.ring(self.direction);
        let length = self.known();
        // SAFETY: the ring is mapped twice in a row, so `length <= RING_BYTES` bytes from any place in the first
        // copy are mapped. The bytes between `read` and `written` belong to the one reader until it consumes
        // them, for which it must be borrowed mutably; a writer that keeps the protocol does not touch them.
        // (A worker whose code scribbles over foreign memory breaks this as it breaks everything; the agent
        // copies every header out before it checks and uses it, so such a worker can only garble its results.)
        unsafe { std::slice::from_raw_parts(start.add(place(self.read)).as_ptr(), length) }
    }

    /// Done with the next `bytes` bytes. The writer may reuse them after [`Reader::publish`].
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.known(), "only what was there can have been read");
        self.read += bytes as u64;
    }

    /// Hands everything that was consumed back to the writer.
    pub fn publish(&mut self) {
        positions(&self.memory, self.direction).1.store(self.read, Ordering::Release);
    }

    /// Bytes consumed so far.
    pub fn consumed(&self) -> u64 {
        self.read
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

/// The written and the read position of a ring.
fn positions(memory: &Memory, direction: Direction) -> (&AtomicU64, &AtomicU64) {
    let status = memory.status();
    match direction {
        Direction::ToWorker => (&status.to_worker_written.0, &status.to_worker_read.0),
        Direction::ToAgent => (&status.to_agent_written.0, &status.to_agent_read.0),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a distance inside a ring is at most RING_BYTES")]
fn offset(distance: u64) -> usize {
    distance as usize
}

fn place(position: u64) -> usize {
    offset(position % RING_BYTES as u64)
}
