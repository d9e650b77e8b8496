//! The link to a worker: the memory that it shares with the agent, and the socket that wakes either side.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use farpool_link::record::{HEADER_BYTES, Header, Kind, LargeHeader, MAX_PAYLOAD, PIECE_BYTES, RunHeader};
use farpool_link::sealed::Sealed;
use farpool_link::{Corrupt, Direction, Memory, RING_BYTES, Reader, Status, Writer};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::super::chunks::{Assignment, Stretch};
use super::super::function::{Function, Shared};
use super::records::Records;

/// Room in the ring that runs and pieces leave free, so that short orders always fit.
const RESERVE: usize = 4096;
/// Largest run written at once: small enough that a worker begins before everything is copied.
const RUN_BYTES: usize = 256 << 10;

/// The agent's end of the link to a worker.
#[derive(Debug)]
pub(super) struct Link {
    memory: Arc<Memory>,
    to: Writer,
    pub(super) records: Records,
    socket: OwnedFd,
    /// For each job number of the pool, whether the worker has the job's function, or the shared value.
    known_functions: Vec<Known>,
    /// The version of the pool's shared values when the worker got all of them.
    shared_version: u64,
    /// The unsent rest of what is being sent in pieces: a large item, or the settings.
    sending: Option<Bytes>,
    /// Orders to send after what is being sent, each with its tag.
    deferred_orders: Vec<(Kind, u32)>,
    /// Not everything could be written, for lack of room.
    wants_room: bool,
    /// The room that was lacking is for files.
    refused_file: Option<RefusedFile>,
    /// Something was written and not published to the worker.
    unpublished: bool,
    /// The worker has written invalid data: nothing more is read.
    broken: bool,
    /// The number of finished items at which the worker wakes the agent.
    armed_at: Option<u64>,
}

/// Why a file could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusedFile {
    /// The worker has to take those that were sent before.
    SocketFull,
    /// The kernel has no memory for it, or too many are on their way to other workers.
    Elsewhere,
}

/// What a worker knows of a job's function or of a shared value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Nothing,
    Small,
    /// One that takes so much memory that an idle worker must not keep it.
    Large,
}

impl Link {
    /// Creates a link. Returns it with the worker's ends: the memory, and the socket.
    pub(super) fn new() -> nix::Result<(Link, [OwnedFd; 2])> {
        let (memory, memory_fd) = Memory::create()?;
        let memory = Arc::new(memory);
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        let link = Link {
            to: Writer::new(Arc::clone(&memory), Direction::ToWorker),
            records: Records::new(Reader::new(Arc::clone(&memory), Direction::ToAgent)),
            memory,
            socket: ours,
            known_functions: Vec::new(),
            shared_version: 0,
            sending: None,
            deferred_orders: Vec::new(),
            wants_room: false,
            refused_file: None,
            unpublished: false,
            broken: false,
            armed_at: None,
        };
        Ok((link, [memory_fd, theirs]))
    }

    /// Returns the page of atomics that both sides write.
    pub(super) fn status(&self) -> &Status {
        self.memory.status()
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    // ---- writing

    /// Writes the worker's settings, which it reads first.
    pub(super) fn set_up(&mut self, settings: Vec<u8>) {
        // The ring of a new memory is empty: this fits.
        let written = self.write_settings(settings);
        debug_assert_eq!(written, Ok(true));
        self.to.publish();
        self.unpublished = false;
    }

    fn write_settings(&mut self, settings: Vec<u8>) -> Result<bool, Corrupt> {
        if settings.len() <= MAX_PAYLOAD {
            return self.order(Kind::Setup, 0, &settings);
        }
        // Settings contain the arguments of the initializer, and may be large.
        let head = LargeHeader { length: settings.len() as u64, timed: false }.to_bytes();
        if !self.order(Kind::LargeSetup, 0, &head)? {
            return Ok(false);
        }
        self.sending = Some(settings.into());
        self.continue_sending()?;
        Ok(true)
    }

    /// Writes the shared values and the function that the worker does not have yet. Returns false if there is no room.
    fn write_functions(&mut self, job: u32, function: &Function, shared: &Shared) -> Result<bool, Corrupt> {
        if self.shared_version != shared.version() {
            for (job, value) in shared.iter() {
                if self.knows(*job) == Known::Nothing {
                    let written = match value {
                        Ok(file) => self.send_file(Kind::Shared, *job, file)?,
                        Err(why) => self.order(Kind::Shared, *job, why.as_bytes())?,
                    };
                    if !written {
                        return Ok(false);
                    }
                    self.note_known(*job, Known::Large);
                }
            }
            self.shared_version = shared.version();
        }
        if self.knows(job) != Known::Nothing {
            return Ok(true);
        }
        let (written, known) = match function {
            Function::Copied(bytes) => (self.order(Kind::Function, job, bytes)?, Known::Small),
            Function::Sealed(file) => (self.send_file(Kind::LargeFunction, job, file)?, Known::Large),
        };
        if written {
            self.note_known(job, known);
        }
        Ok(written)
    }

    #[inline]
    fn knows(&self, job: u32) -> Known {
        self.known_functions.get(job as usize).copied().unwrap_or_default()
    }

    fn note_known(&mut self, job: u32, known: Known) {
        if self.known_functions.len() <= job as usize {
            self.known_functions.resize(job as usize + 1, Known::Nothing);
        }
        self.known_functions[job as usize] = known;
    }

    /// Sends a file, and announces it. Returns false if there is no room.
    fn send_file(&mut self, kind: Kind, tag: u32, file: &Sealed) -> Result<bool, Corrupt> {
        let head = LargeHeader { length: file.len() as u64, timed: false }.to_bytes();
        let needed = HEADER_BYTES + head.len() + RESERVE;
        if self.to.room(needed)? < needed {
            return Ok(false);
        }
        match file.send(self.socket.as_fd()) {
            // The worker has exited, which its fork server reports.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => self.order(kind, tag, &head),
            Err(error) => {
                let is_full = error == Errno::EAGAIN;
                self.refused_file = Some(if is_full { RefusedFile::SocketFull } else { RefusedFile::Elsewhere });
                Ok(false)
            }
        }
    }

    /// Writes a short order. Returns false if even the reserve is used up.
    fn order(&mut self, kind: Kind, tag: u32, payload: &[u8]) -> Result<bool, Corrupt> {
        let bytes = HEADER_BYTES + payload.len();
        if self.to.room(bytes)? < bytes {
            return Ok(false);
        }
        self.to.space()[HEADER_BYTES..bytes].copy_from_slice(payload);
        self.finish_record(kind, tag, 0, payload.len());
        Ok(true)
    }

    /// Writes an order without payload. If something is being sent in pieces, the order follows it.
    pub(super) fn order_or_defer(&mut self, kind: Kind, tag: u32) -> Result<bool, Corrupt> {
        if self.sending.is_some() {
            self.deferred_orders.push((kind, tag));
            return Ok(true);
        }
        self.order(kind, tag, &[])
    }

    /// Tells the worker to forget the function of a job that has ended, or a shared value.
    pub(super) fn forget_function(&mut self, job: u32) {
        let known = self.known_functions.get_mut(job as usize).map(std::mem::take).unwrap_or_default();
        if known == Known::Nothing {
            return;
        }
        // If there is no room for it, the next function with this number replaces this one.
        let unpublished = self.unpublished;
        let _ = self.order_or_defer(Kind::Forget, job);
        if known == Known::Small {
            // The worker is not woken: it reads this with its next order.
            self.unpublished = unpublished;
        }
    }

    /// Writes as many of the assigned items as fit, up to `most`, and their function before them. Returns how many.
    pub(super) fn give(&mut self, assignment: &Assignment<'_>, position: u32, most: u64) -> Result<u32, Corrupt> {
        let &Assignment { job, function, shared, ref stretch, .. } = assignment;
        self.refused_file = None;
        if (self.shared_version != shared.version() || self.knows(job) == Known::Nothing)
            && !self.write_functions(job, function, shared)?
        {
            self.wants_room = true;
            return Ok(0);
        }
        let timed = assignment.timeout_ns > 0;
        let count = if is_large(stretch) {
            u32::from(self.begin_large(job, position, stretch, timed)?)
        } else {
            self.run(job, position, stretch, usize::try_from(most).unwrap_or(usize::MAX), timed)?
        };
        self.wants_room = count == 0 || self.sending.is_some();
        Ok(count)
    }

    /// Writes as many items of `stretch` as fit, up to `most`, as a run. Returns how many.
    fn run(
        &mut self,
        job: u32,
        position: u32,
        stretch: &Stretch<'_>,
        most: usize,
        timed: bool,
    ) -> Result<u32, Corrupt> {
        let overhead = HEADER_BYTES + RunHeader::BYTES;
        let room = self.to.room(RUN_BYTES + overhead + RESERVE)?.saturating_sub(overhead + RESERVE);
        let mut count = stretch.fitting(most, room.min(RUN_BYTES));
        // A single item may be as large as a record; several only up to a run's usual size.
        let single = stretch.bytes(1) + 4;
        if count == 0 && self.to.room(single + overhead + RESERVE)? >= single + overhead + RESERVE {
            count = 1;
        }
        if count == 0 {
            return Ok(0);
        }
        let bytes = stretch.bytes(count);
        let payload = RunHeader::BYTES + 4 * count + bytes;
        let items = u32::try_from(count).expect("a run's items fit into the ring");
        let space = &mut self.to.space()[HEADER_BYTES..HEADER_BYTES + payload];
        let (head, rest) = space.split_at_mut(RunHeader::BYTES);
        RunHeader { count: items, start: stretch.start, timed }.write(head);
        let (ends, data) = rest.split_at_mut(4 * count);
        ends.copy_from_slice(&stretch.ends[..4 * count]);
        data.copy_from_slice(&stretch.data[stretch.offset..stretch.offset + bytes]);
        self.finish_record(Kind::Run, job, position, payload);
        Ok(items)
    }

    /// Begins to send the first item of `stretch`, a large one. Returns false if there is no room even for its header.
    fn begin_large(&mut self, job: u32, position: u32, stretch: &Stretch<'_>, timed: bool) -> Result<bool, Corrupt> {
        let length = stretch.bytes(1);
        let head = LargeHeader { length: length as u64, timed }.to_bytes();
        if self.to.room(HEADER_BYTES + head.len() + RESERVE)? < HEADER_BYTES + head.len() + RESERVE {
            return Ok(false);
        }
        self.to.space()[HEADER_BYTES..HEADER_BYTES + head.len()].copy_from_slice(&head);
        self.finish_record(Kind::Large, job, position, head.len());
        self.sending = Some(stretch.data.slice(stretch.offset..stretch.offset + length));
        self.continue_sending()?;
        Ok(true)
    }

    /// Returns whether something is being sent in pieces.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Sends more of what is being sent, and notes whether it waits for room. Returns whether anything was written.
    pub(super) fn send_more(&mut self) -> Result<bool, Corrupt> {
        (self.wants_room, self.refused_file) = (false, None);
        if self.sending.is_none() {
            return Ok(false);
        }
        let sent = self.continue_sending();
        self.wants_room = self.sending.is_some();
        sent
    }

    /// Sends as many pieces as there is room for. Returns whether anything was written.
    fn continue_sending(&mut self) -> Result<bool, Corrupt> {
        let Some(mut rest) = self.sending.take() else { return Ok(false) };
        let mut any = false;
        while rest.has_remaining() {
            let room = self.to.room(HEADER_BYTES + PIECE_BYTES + RESERVE)?.saturating_sub(HEADER_BYTES + RESERVE);
            let length = rest.remaining().min(PIECE_BYTES);
            if room < length {
                self.sending = Some(rest);
                break;
            }
            rest.copy_to_slice(&mut self.to.space()[HEADER_BYTES..HEADER_BYTES + length]);
            self.finish_record(Kind::Piece, 0, 0, length);
            // The worker reads pieces while more are written.
            self.publish();
            any = true;
        }
        if self.sending.is_none() {
            for (kind, tag) in std::mem::take(&mut self.deferred_orders) {
                self.order(kind, tag, &[])?;
            }
            self.publish();
        }
        Ok(any)
    }

    fn finish_record(&mut self, kind: Kind, tag: u32, position: u32, length: usize) {
        let header =
            Header { length: u32::try_from(length).expect("a record's payload is small"), kind, tag, position };
        header.write(self.to.space());
        self.to.advance(HEADER_BYTES + length);
        self.unpublished = true;
    }

    /// Publishes what was written to the worker, and wakes it if it sleeps.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.to.publish();
            self.wake_if_asleep();
        }
    }

    fn socket_has_room(&self) -> bool {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut socket, PollTimeout::ZERO), Ok(1..))
    }

    fn wake_if_asleep(&self) {
        if self.status().worker_needs_doorbell() {
            // A full socket wakes it as well. An error means that it has exited, which its fork server reports.
            let _ = send(self.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
    }

    // ---- reading

    /// Begins to read what the worker has written.
    ///
    /// # Errors
    /// If it has written invalid data before.
    pub(super) fn begin_reading(&mut self) -> Result<(), Corrupt> {
        // The store is expensive if the page is cold, so only where it was armed.
        if self.armed_at.take().is_some() {
            self.status().agent_awake();
        }
        if self.broken { Err(Corrupt) } else { Ok(()) }
    }

    /// Releases what was read since `before`, so that a worker that waits for room continues. `corrupt`: nothing more
    /// is read.
    pub(super) fn end_reading(&mut self, before: u64, corrupt: bool) {
        self.broken |= corrupt;
        if self.records.consumed() == before {
            return;
        }
        self.records.publish();
        // It usually sleeps because it is idle, and must not be woken needlessly.
        if self.status().room_to_agent_is_wanted() {
            self.wake_if_asleep();
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    // ---- sleeping

    /// Returns whether something is to be written as soon as there is room.
    pub(super) fn wants_room(&self) -> bool {
        self.wants_room
    }

    /// Asks the worker to wake the agent when it has finished `finished` items. Returns true if there is something to
    /// read or to write already.
    pub(super) fn arm(&mut self, finished: u64) -> bool {
        self.status().agent_sleeps(finished);
        self.armed_at = Some(finished);
        if self.wants_room {
            self.status().want_room_to_worker();
            let has_room = match self.refused_file {
                None => self.to.room(RING_BYTES).is_ok_and(|room| room > RING_BYTES / 2),
                // A worker that has read all records has also taken all files, and one that has not wakes the agent.
                Some(RefusedFile::SocketFull) => self.socket_has_room(),
                Some(RefusedFile::Elsewhere) => false,
            };
            if has_room {
                return true;
            }
        }
        self.records.any()
    }

    /// Returns whether a file could not be sent for a reason of which no event reports the end.
    pub(super) fn retries_file(&self) -> bool {
        self.refused_file == Some(RefusedFile::Elsewhere)
    }

    /// Returns the number of finished items at which the worker wakes the agent.
    pub(super) fn armed_at(&self) -> Option<u64> {
        self.armed_at
    }

    /// Empties the socket of wake-ups. Returns false if the worker has closed it.
    pub(super) fn drain_socket(&self) -> bool {
        !matches!(recv(self.socket.as_raw_fd(), &mut [0; 256], MsgFlags::MSG_DONTWAIT), Ok(0) | Err(Errno::ECONNRESET))
    }
}

/// Returns whether the first item of `stretch` is too large for a run.
fn is_large(stretch: &Stretch<'_>) -> bool {
    stretch.bytes(1) + 4 + RunHeader::BYTES > MAX_PAYLOAD
}
