//! Writes a worker's outcomes, each into the shared ring as soon as it is ready.

use std::sync::Arc;

use farpool_link::record::{HEADER_BYTES, Header, Kind, MAX_PAYLOAD, PIECE_BYTES};
use farpool_link::{Direction, Memory, Writer};
use farpool_proto::v1::{Failure, FailureKind};
use prost::Message;

use crate::bell::Bell;
use crate::leave;

/// With less room than this, results are not encoded in place.
const ENOUGH_ROOM: usize = 4096;

#[derive(Debug)]
pub(crate) struct Output {
    writer: Writer,
    bell: Arc<Bell>,
    memory: Arc<Memory>,
    /// Number of items finished so far.
    finished: u64,
    /// Whether records wait for the end of their run, so that the agent sees both at once.
    holding: bool,
    payload_limit: u64,
    /// The advice in errors about larger results, if any.
    advice: Option<&'static str>,
}

impl Output {
    pub(crate) fn new(memory: Arc<Memory>, bell: Arc<Bell>) -> Output {
        let writer = Writer::new(Arc::clone(&memory), Direction::ToAgent);
        Output { writer, bell, memory, finished: 0, holding: false, payload_limit: u64::MAX, advice: None }
    }

    /// Limits results to this many bytes. `advice` is added to errors about larger ones.
    pub(crate) fn set_payload_limit(&mut self, bytes: u64, advice: Option<&'static str>) {
        (self.payload_limit, self.advice) = (bytes, advice);
    }

    /// Returns the room for encoding a result in place, for [`Output::done_in_room`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.room_for(ENOUGH_ROOM);
        let space = self.writer.space();
        let end = space.len().min(HEADER_BYTES + MAX_PAYLOAD);
        space.get_mut(HEADER_BYTES..end).unwrap_or_default()
    }

    /// Writes the outcome of the item at `position`: its result is the first `length` bytes of the room.
    pub(crate) fn done_in_room(&mut self, position: u32, length: usize, failed: bool) {
        if length as u64 > self.payload_limit {
            return self.too_large(position, length);
        }
        self.finish_record(Kind::Ok, u32::from(failed), position, length);
        self.count_finished();
    }

    /// Writes the outcome of the item at `position`: its result is `result`.
    pub(crate) fn done(&mut self, position: u32, result: &[u8], failed: bool) {
        if result.len() as u64 > self.payload_limit {
            return self.too_large(position, result.len());
        }
        if result.len() <= MAX_PAYLOAD / 4 {
            self.write(Kind::Ok, u32::from(failed), position, result);
        } else {
            // A large result is published in pieces.
            self.holding = false;
            self.write(Kind::Large, u32::from(failed), position, &(result.len() as u64).to_le_bytes());
            for piece in result.chunks(PIECE_BYTES) {
                self.write(Kind::Piece, 0, position, piece);
                // The agent reads pieces while more are written. While asleep, it would only notice a full ring.
                self.wake_agent();
            }
        }
        self.count_finished();
    }

    /// Writes that the item at `position` has failed.
    pub(crate) fn failed(&mut self, position: u32, mut failure: Failure) {
        shorten(&mut failure);
        self.write(Kind::Failed, 0, position, &failure.encode_to_vec());
        self.count_finished();
    }

    /// Holds the next outcome, the last of its run, until the run's end is written.
    pub(crate) fn hold(&mut self) {
        self.holding = true;
    }

    /// Writes how long a run took; `position` is its last item's.
    pub(crate) fn run_ended(&mut self, position: u32, nanoseconds: u64) {
        self.holding = false;
        self.write(Kind::RunEnd, 0, position, &nanoseconds.to_le_bytes());
        if self.memory.status().agent_needs_doorbell(self.finished) {
            self.bell.ring();
        }
    }

    /// Writes a record that is not an outcome.
    pub(crate) fn control(&mut self, kind: Kind, payload: &[u8]) {
        self.write(kind, 0, 0, payload);
        self.wake_agent();
    }

    /// Writes that the worker's setup has failed: its memory limit or its initializer.
    pub(crate) fn init_failed(&mut self, mut failure: Failure) {
        shorten(&mut failure);
        self.control(Kind::InitFailed, &failure.encode_to_vec());
    }

    fn too_large(&mut self, position: u32, length: usize) {
        let mut message = format!("the result is {length} bytes long, the limit is {} bytes", self.payload_limit);
        if let Some(advice) = self.advice {
            message = format!("{message}: {advice}");
        }
        self.failed(position, Failure { kind: FailureKind::PayloadTooLarge.into(), message, ..Failure::default() });
    }

    /// Counts a finished item.
    fn count_finished(&mut self) {
        self.finished += 1;
    }

    /// Wakes the agent during a run, if it asked for that by now.
    pub(crate) fn progress(&self) {
        if self.memory.status().agent_needs_doorbell(self.finished) {
            self.bell.ring();
        }
    }

    fn wake_agent(&self) {
        if self.memory.status().take_agent_sleep() {
            self.bell.ring();
        }
    }

    fn write(&mut self, kind: Kind, tag: u32, position: u32, payload: &[u8]) {
        self.wait_for_room(HEADER_BYTES + payload.len());
        self.writer.space()[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        self.finish_record(kind, tag, position, payload.len());
    }

    fn finish_record(&mut self, kind: Kind, tag: u32, position: u32, length: usize) {
        let header = Header { length: u32::try_from(length).unwrap_or(u32::MAX), kind, tag, position };
        header.write(self.writer.space());
        self.writer.advance(HEADER_BYTES + length);
        if !self.holding {
            self.writer.publish();
        }
    }

    fn wait_for_room(&mut self, bytes: usize) {
        if self.room_for(bytes) >= bytes {
            return;
        }
        // The agent must see the records to make room.
        self.writer.publish();
        let bell = Arc::clone(&self.bell);
        let memory = Arc::clone(&self.memory);
        bell.wait(|| {
            memory.status().want_room_to_agent();
            let has_room = self.room_for(bytes) >= bytes;
            // Only the agent can make room, so it must not sleep now.
            if !has_room && memory.status().take_agent_sleep() {
                bell.ring();
            }
            has_room
        });
    }

    fn room_for(&mut self, bytes: usize) -> usize {
        self.writer.room(bytes).unwrap_or_else(|_| leave::broken_link())
    }
}

/// Shortens a failure's texts, so that it always fits into a record.
fn shorten(failure: &mut Failure) {
    const MAX_TEXT_BYTES: usize = 64 << 10;
    for text in [&mut failure.message, &mut failure.backtrace] {
        if text.len() > MAX_TEXT_BYTES {
            let end = text.floor_char_boundary(MAX_TEXT_BYTES);
            text.truncate(end);
            text.push_str(" ... (cut)");
        }
    }
}
