//! The two rings of a [`Memory`]: one writer and one reader each, in different processes.
//!
//! Positions count bytes since the start and never wrap (2^64 bytes). A position modulo the ring's size is its offset
//! in the ring.
//! The writer owns the bytes between `written` and `read + RING_BYTES`, the reader those between `read` and `written`.
//! Each hands bytes over by storing its position with release, and takes them by loading the other's with acquire. A
//! position from the other process is checked before it is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;

use super::memory::{Direction, Memory, RING_BYTES};

/// The other side wrote an invalid position: the link is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// The writing end of a ring.
#[derive(Debug)]
pub struct Writer {
    memory: Arc<Memory>,
    direction: Direction,
    written: u64,
    /// The reader's position when it was last loaded.
    read: u64,
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Reader {
    memory: Arc<Memory>,
    direction: Direction,
    read: u64,
    /// The writer's position when it was last loaded.
    written: u64,
}

impl Writer {
    /// Creates the writing end of `direction`; there must be only one.
    pub fn new(memory: Arc<Memory>, direction: Direction) -> Writer {
        Writer { memory, direction, written: 0, read: 0 }
    }

    /// Returns how many bytes can be written now. Loads the reader's position only if fewer than `wanted` are known.
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

    /// Returns the known room (see [`Writer::room`]) to write into; contiguous.
    pub fn space(&mut self) -> &mut [u8] {
        let start = self.memory.ring(self.direction);
        let length = self.known_room();
        // SAFETY: the ring is mapped twice in a row, so `length <= RING_BYTES` bytes from any offset in the first copy are
        // mapped. The bytes between `written` and `read + RING_BYTES` belong to the only writer, which is borrowed mutably. A
        // correct reader does not touch them before it sees a larger `written`. A faulty one can only corrupt what it reads
        // itself: these bytes are only written here, never read.
        unsafe { std::slice::from_raw_parts_mut(start.add(ring_offset(self.written)).as_ptr(), length) }
    }

    /// Marks the next `bytes` bytes of the space as written. The reader sees them after [`Writer::publish`].
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.known_room(), "more was written than there was room for");
        self.written += bytes as u64;
    }

    /// Publishes everything that was written to the reader.
    pub fn publish(&mut self) {
        positions(&self.memory, self.direction).0.store(self.written, Ordering::Release);
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

impl Reader {
    /// Creates the reading end of `direction`; there must be only one.
    pub fn new(memory: Arc<Memory>, direction: Direction) -> Reader {
        Reader { memory, direction, read: 0, written: 0 }
    }

    /// Returns how many bytes can be read now. Loads the writer's position only if fewer than `wanted` are known.
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

    /// Returns the known bytes (see [`Reader::available`]); contiguous.
    ///
    /// # Safety
    /// The writer must not change these bytes before they are consumed. A worker may rely on its agent for that. An agent may
    /// not rely on its workers: it copies ([`Reader::copy`], [`Reader::copy_into`]).
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the ring is mapped twice in a row, so `known() <= RING_BYTES` bytes from any offset in the first copy are
        // mapped. The bytes between `read` and `written` belong to the only reader until it consumes them, which borrows it
        // mutably. The caller promises that the writer does not change them until then.
        unsafe { std::slice::from_raw_parts(self.start(), self.known()) }
    }

    /// Copies `N` of the known bytes, starting at `from`; `None` if there are fewer.
    pub fn copy<const N: usize>(&self, from: usize) -> Option<[u8; N]> {
        if from.checked_add(N)? > self.known() {
            return None;
        }
        // SAFETY: as in `copy_into`.
        Some(unsafe { std::ptr::read_unaligned(self.start().add(from).cast::<[u8; N]>()) })
    }

    /// Appends a copy of `length` of the known bytes, starting at `from`; `None`, and nothing is appended, if there are
    /// fewer.
    ///
    /// A faulty writer may change published bytes at any time. So decisions must be based on one copy: copy, then check, then
    /// use. The writer determines the copy's content, but the copy does not change.
    pub fn copy_into(&self, from: usize, length: usize, to: &mut impl BufMut) -> Option<()> {
        if from.checked_add(length)? > self.known() {
            return None;
        }
        let mut copied = 0;
        while copied < length {
            let room = to.chunk_mut();
            let part = room.len().min(length - copied);
            // SAFETY: `from + length <= known() <= RING_BYTES`, and that many bytes are mapped from any offset in the first copy
            // of the ring (see `bytes`). `room` is ours and has `part` bytes, which are written before they are declared
            // initialised. No reference to the shared bytes is made, only this copy of them. If the other process writes at the
            // same time, the copy mixes old and new bytes, and any byte is valid.
            unsafe {
                std::ptr::copy_nonoverlapping(self.start().add(from + copied), room.as_mut_ptr(), part);
                to.advance_mut(part);
            }
            copied += part;
        }
        Some(())
    }

    /// Returns the address of the next byte.
    fn start(&self) -> *const u8 {
        // SAFETY: a position modulo the size of a ring lies in its mapping.
        unsafe { self.memory.ring(self.direction).add(ring_offset(self.read)).as_ptr() }
    }

    /// Marks the next `bytes` bytes as read. The writer may reuse them after [`Reader::publish`].
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.known(), "more was read than was available");
        self.read += bytes as u64;
    }

    /// Releases everything that was consumed to the writer.
    pub fn publish(&mut self) {
        positions(&self.memory, self.direction).1.store(self.read, Ordering::Release);
    }

    /// Returns the number of bytes consumed so far.
    pub fn consumed(&self) -> u64 {
        self.read
    }

    /// The memory that the ring lies in.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }
}

/// Returns the written and the read position of a ring.
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

fn ring_offset(position: u64) -> usize {
    offset(position % RING_BYTES as u64)
}
