//! The writing end of a worker: outcomes, each in the shared ring as soon as it is there.

use std::sync::Arc;

use farpool_link::record::{HEADER_BYTES, Header, Kind, MAX_PAYLOAD, PIECE_BYTES};
use farpool_link::{Direction, Memory, Writer};
use farpool_proto::v1::{Failure, FailureKind};
use prost::Message;

use crate::bell::Bell;
use crate::leave;

/// Below this much room the result is not even tried to be encoded in place.
const ENOUGH_ROOM: usize = 4096;

#[derive(Debug)]
pub(crate) struct Output {
    writer: Writer,
    bell: Arc<Bell>,
    memory: Arc<Memory>,
    /// Items finished so far.
    finished: u64,
    /// What is written waits for the end of its run, so that the agent sees both at once.
    holding: bool,
    payload_limit: u64,
}

impl Output {
    pub(crate) fn new(memory: Arc<Memory>, bell: Arc<Bell>) -> Output {
        let writer = Writer::new(Arc::clone(&memory), Direction::ToAgent);
        Output { writer, bell, memory, finished: 0, holding: false, payload_limit: u64::MAX }
    }

    pub(crate) fn set_payload_limit(&mut self, bytes: u64) {
        self.payload_limit = bytes;
    }

    /// Where a result may be encoded in place, for [`Output::done_in_room`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.room_for(ENOUGH_ROOM);
        let space = self.writer.space();
        let end = space.len().min(HEADER_BYTES + MAX_PAYLOAD);
        space.get_mut(HEADER_BYTES..end).unwrap_or_default()
    }

    /// The result of the item at `position` is the first `length` bytes of the room.
    pub(crate) fn done_in_room(&mut self, position: u32, length: usize, failed: bool) {
        if length as u64 > self.payload_limit {
            return self.too_large(position, length);
        }
        self.finish_record(Kind::Ok, u32::from(failed), position, length);
        self.one_more();
    }

    /// The result of the item at `position` is `result`.
    pub(crate) fn done(&mut self, position: u32, result: &[u8], failed: bool) {
        if result.len() as u64 > self.payload_limit {
            return self.too_large(position, result.len());
        }
        if result.len() <= MAX_PAYLOAD / 4 {
            self.write(Kind::Ok, u32::from(failed), position, result);
        } else {
            // Too much to be shown at once.
            self.holding = false;
            self.write(Kind::Large, u32::from(failed), position, &(result.len() as u64).to_le_bytes());
            for piece in result.chunks(PIECE_BYTES) {
                self.write(Kind::Piece, 0, position, piece);
                // The agent takes pieces out while more are written; asleep, it would hear of a full ring only.
                self.tell();
            }
        }
        self.one_more();
    }

    /// The item at `position` has failed.
    pub(crate) fn failed(&mut self, position: u32, mut failure: Failure) {
        shorten(&mut failure);
        self.write(Kind::Failed, 0, position, &failure.encode_to_vec());
        self.one_more();
    }

    /// The next outcome is the last of its run: it is shown together with the run's end.
    pub(crate) fn hold(&mut self) {
        self.holding = true;
    }

    /// A run took so long; `position` is that of its last item.
    pub(crate) fn run_ended(&mut self, position: u32, nanoseconds: u64) {
        self.holding = false;
        self.write(Kind::RunEnd, 0, position, &nanoseconds.to_le_bytes());
        if self.memory.status().agent_needs_doorbell(self.finished) {
            self.bell.ring();
        }
    }

    /// News that are no outcome.
    pub(crate) fn control(&mut self, kind: Kind, payload: &[u8]) {
        self.write(kind, 0, 0, payload);
        self.tell();
    }

    /// The initializer has failed, or something else before the first item.
    pub(crate) fn init_failed(&mut self, mut failure: Failure) {
        shorten(&mut failure);
        self.control(Kind::InitFailed, &failure.encode_to_vec());
    }

    fn too_large(&mut self, position: u32, length: usize) {
        let message = format!(
            "the result is {length} bytes long, the limit is {} bytes: return less, or raise the pool's payload_limit",
            self.payload_limit
        );
        self.failed(position, Failure { kind: FailureKind::PayloadTooLarge.into(), message, ..Failure::default() });
    }

    /// One more item is finished: the agent may have asked to hear of it.
    fn one_more(&mut self) {
        self.finished += 1;
    }

    /// The items of a run go on: the agent is woken if it asked to be by now.
    pub(crate) fn progress(&self) {
        if self.memory.status().agent_needs_doorbell(self.finished) {
            self.bell.ring();
        }
    }

    fn tell(&self) {
        if self.memory.status().agent_is_asleep() {
            self.bell.ring();
        }
    }

    fn write(&mut self, kind: Kind, slot: u32, position: u32, payload: &[u8]) {
        self.wait_for_room(HEADER_BYTES + payload.len());
        self.writer.space()[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        self.finish_record(kind, slot, position, payload.len());
    }

    fn finish_record(&mut self, kind: Kind, slot: u32, position: u32, length: usize) {
        let header = Header { length: u32::try_from(length).unwrap_or(u32::MAX), kind, slot, position };
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
        // Nobody makes room for what nobody sees.
        self.writer.publish();
        let bell = Arc::clone(&self.bell);
        let memory = Arc::clone(&self.memory);
        bell.wait(|| {
            memory.status().want_room();
            let there = self.room_for(bytes) >= bytes;
            // Only the agent can make room, so it must not sleep now.
            if !there && memory.status().agent_is_asleep() {
                bell.ring();
            }
            there
        });
    }

    fn room_for(&mut self, bytes: usize) -> usize {
        self.writer.room(bytes).unwrap_or_else(|_| leave::broken_link())
    }
}

/// A failure's texts are bounded, so that it always fits into a record.
fn shorten(failure: &mut Failure) {
    const LONGEST: usize = 64 << 10;
    for text in [&mut failure.message, &mut failure.backtrace] {
        if text.len() > LONGEST {
            let end = text.floor_char_boundary(LONGEST);
            text.truncate(end);
            text.push_str(" ... (cut)");
        }
    }
}
