//! One worker as the agent sees it: its process, its link and its items.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use farpool_link::process::Process;
use farpool_link::record::{HEADER_BYTES, Header, Kind, LargeHeader, MAX_PAYLOAD, PIECE_BYTES, RunHeader};
use farpool_link::{Corrupt, Direction, Memory, Reader, Writer};
use farpool_proto::v1::{Failure, WorkerSettings};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};
use prost::Message;

use super::chunks::{Piece, Stretch};
use super::death::Reason;
use super::receiving::Receiving;
use super::stream::Stream;

/// Room in the ring that runs and pieces leave free, so that short orders always fit.
const RESERVE: usize = 4096;
/// Largest run written at once: small enough that a worker begins before everything is copied.
const RUN_BYTES: usize = 256 << 10;

/// A worker process and all that the agent knows about it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: u32,
    /// Its process id, as reported by the fork server; 0: not reported yet.
    pub(super) pid: u32,
    /// The process with this id, if it is a child of the fork server.
    pub(super) process: Option<Process>,
    /// Its process id, as reported by itself, perhaps earlier. Good enough for errors, and for nothing else.
    pub(super) reported_pid: u32,
    pub(super) state: State,
    /// Whether it has become ready: its initializer, if any, has returned.
    pub(super) was_ready: bool,
    /// When it was requested, in nanoseconds.
    pub(super) requested_at: u64,
    pub(super) memory: Arc<Memory>,
    pub(super) to: Writer,
    pub(super) from: Reader,
    pub(super) socket: OwnedFd,
    /// `None`: it writes to this process's stdout.
    pub(super) stdout: Option<Stream>,
    pub(super) stderr: Stream,
    /// Its unfinished items, ordered by position.
    pub(super) given: VecDeque<Given>,
    /// The rest of a chunk that must stay together, if it has the first part.
    pub(super) rest: Option<Piece>,
    /// It could not be given everything for lack of room in its ring.
    pub(super) wants_room: bool,
    /// Position of its next item: the number of items that it was given so far.
    pub(super) next_position: u32,
    /// Number of items that it has finished.
    pub(super) finished: u64,
    /// Number of items that it had finished at its last measurement.
    pub(super) measured: u64,
    /// Number of measurements that it has sent.
    pub(super) run_ends: u64,
    /// Why its initializer failed; it exits by itself.
    pub(super) init_failure: Option<Failure>,
    /// For each job number of the pool, whether it has the job's function.
    pub(super) known_functions: Vec<bool>,
    /// The unsent rest of a large item, or of the settings.
    pub(super) sending: Option<Bytes>,
    /// A partially received large result.
    pub(super) receiving: Option<Receiving>,
    /// Orders to send after the large item that is being sent.
    deferred_orders: Vec<Kind>,
    /// Items were taken back, and it has not yet passed their position.
    pub(super) revoking: bool,
    pub(super) revoked_at: u64,
    /// It has written invalid data: nothing more is read from it.
    pub(super) broken: bool,
    /// Something was written and not published to it.
    unpublished: bool,
    pub(super) termination: Option<Termination>,
    /// When it is terminated for running cancelled items, unless it finishes them.
    pub(super) cancel_at: Option<u64>,
    /// It lends its slot: all its items wait for other items.
    pub(super) lent: bool,
    /// Positions of items whose clients wait: the slot is lent while one of them runs alone.
    pub(super) lend_for: Vec<u32>,
    /// It gets no items until other pools have had their turn.
    pub(super) yields_slot: bool,
    /// When it is exiting: its slot stays occupied until this time at most.
    pub(super) slot_held_until: Option<u64>,
    /// Its last observed progress: (items finished, items claimed, time).
    pub(super) progress: (u64, u32, u64),
    /// The number of finished items at which it wakes the agent; see `WorkerPool::arm`.
    pub(super) armed_at: Option<u64>,
}

/// The stages of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not ready yet: starting, or in its initializer.
    Starting,
    /// Takes items.
    Ready,
    /// Finishes its items and gets no more: it has run as many as one worker may.
    Retiring,
    /// Was told to exit.
    Exiting,
    /// Is being terminated; see [`Worker::termination`].
    Terminating,
}

/// The progress of a worker's termination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Termination {
    pub(super) reason: Reason,
    /// When the next step is due.
    pub(super) at: u64,
    /// SIGTERM was sent.
    pub(super) sigterm_sent: bool,
    /// The fork server was asked to send SIGKILL.
    pub(super) sigkill_sent: bool,
    /// The agent itself has sent SIGKILL.
    pub(super) killed_directly: bool,
}

/// Consecutive items of a chunk that a worker was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) chunk: u32,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Position of the first one.
    pub(super) position: u32,
    /// How many of them are finished, from the first on.
    pub(super) done: u32,
    /// When the worker was given them.
    pub(super) since: u64,
}

impl Given {
    /// Returns the number of unfinished items.
    pub(super) fn left(&self) -> u32 {
        self.count - self.done
    }

    /// Returns the position of the first unfinished item.
    pub(super) fn next(&self) -> u32 {
        self.position + self.done
    }

    /// Returns the position behind the last item.
    pub(super) fn end(&self) -> u32 {
        self.position + self.count
    }

    /// Returns the index in the job of the item at `position`, if it is one of these and unfinished.
    pub(super) fn item_at(&self, position: u32) -> Option<u64> {
        let known = (self.next()..self.end()).contains(&position);
        known.then(|| self.first + u64::from(position - self.position))
    }
}

/// The descriptors that a new worker gets.
#[derive(Debug)]
pub(super) struct WorkerEnds {
    pub(super) memory: OwnedFd,
    pub(super) socket: OwnedFd,
    /// `None`: this process's own.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: OwnedFd,
}

impl Worker {
    /// Prepares the agent's end of a worker and writes its settings, which it reads first.
    pub(super) fn prepare(
        number: u32,
        settings: &WorkerSettings,
        forward_output: bool,
        now: u64,
    ) -> nix::Result<(Worker, WorkerEnds)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (memory, memory_fd) = Memory::create()?;
        let memory = Arc::new(memory);
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        let (stdout, stdout_fd) = if forward_output { Some(Stream::new()?) } else { None }.unzip();
        let (stderr, stderr_fd) = Stream::new()?;
        let mut worker = Worker {
            number,
            pid: 0,
            process: None,
            reported_pid: 0,
            state: State::Starting,
            was_ready: false,
            requested_at: now,
            to: Writer::new(Arc::clone(&memory), Direction::ToWorker),
            from: Reader::new(Arc::clone(&memory), Direction::ToAgent),
            memory,
            socket: ours,
            stdout,
            stderr,
            given: VecDeque::new(),
            rest: None,
            wants_room: false,
            next_position: 0,
            finished: 0,
            measured: 0,
            run_ends: 0,
            init_failure: None,
            known_functions: Vec::new(),
            sending: None,
            receiving: None,
            deferred_orders: Vec::new(),
            revoking: false,
            revoked_at: now,
            broken: false,
            unpublished: false,
            termination: None,
            cancel_at: None,
            lent: false,
            lend_for: Vec::new(),
            yields_slot: false,
            slot_held_until: None,
            progress: (0, 0, now),
            armed_at: None,
        };
        // The ring of a new memory is empty: this fits.
        let written = worker.set_up(settings.encode_to_vec());
        debug_assert_eq!(written, Ok(true));
        worker.to.publish();
        worker.unpublished = false;
        Ok((worker, WorkerEnds { memory: memory_fd, socket: theirs, stdout: stdout_fd, stderr: stderr_fd }))
    }

    fn set_up(&mut self, settings: Vec<u8>) -> Result<bool, Corrupt> {
        if settings.len() <= MAX_PAYLOAD {
            return self.order(Kind::Setup, 0, &settings);
        }
        // Settings contain the arguments of the initializer, and may be large.
        let head = LargeHeader { length: settings.len() as u64, timed: false }.to_bytes();
        let begun = self.order(Kind::LargeSetup, 0, &head)?;
        self.sending = Some(settings.into());
        self.continue_sending()?;
        Ok(begun)
    }

    /// Returns its process id; 0 if it is not known yet.
    pub(super) fn known_pid(&self) -> u32 {
        if self.pid == 0 { self.reported_pid } else { self.pid }
    }

    /// Returns the number of its unfinished items.
    pub(super) fn outstanding(&self) -> u64 {
        self.given.iter().map(|given| u64::from(given.left())).sum()
    }

    /// Returns the number of its items that have not begun.
    pub(super) fn not_begun(&self) -> u32 {
        let claimed = self.memory.status().claimed();
        self.given.iter().map(|given| given.end().saturating_sub(given.position.max(claimed))).sum()
    }

    /// Returns the number of items that wait behind running ones. The next ones that it will begin anyway do not count.
    pub(super) fn waiting(&self, threads: usize) -> u32 {
        let not_begun = self.not_begun();
        let begun = self.outstanding().saturating_sub(u64::from(not_begun));
        let free = u32::try_from((threads as u64).saturating_sub(begun)).unwrap_or(u32::MAX);
        not_begun.saturating_sub(free)
    }

    /// Returns whether it takes items now.
    pub(super) fn takes_items(&self) -> bool {
        self.state == State::Ready && self.sending.is_none() && !self.revoking && !self.lent && !self.yields_slot
    }

    /// Writes a short order. Returns false if even the reserve is used up.
    pub(super) fn order(&mut self, kind: Kind, slot: u32, payload: &[u8]) -> Result<bool, Corrupt> {
        let bytes = HEADER_BYTES + payload.len();
        if self.to.room(bytes)? < bytes {
            return Ok(false);
        }
        self.to.space()[HEADER_BYTES..bytes].copy_from_slice(payload);
        self.finish_record(kind, slot, 0, payload.len());
        Ok(true)
    }

    /// Writes an order without payload. If a large item is being sent, the order follows it.
    pub(super) fn order_or_defer(&mut self, kind: Kind) -> Result<bool, Corrupt> {
        if self.sending.is_some() {
            self.deferred_orders.push(kind);
            return Ok(true);
        }
        self.order(kind, 0, &[])
    }

    /// Writes an order without waking the worker, which reads it together with the next one.
    pub(super) fn order_without_wake(&mut self, kind: Kind, slot: u32, payload: &[u8]) -> Result<bool, Corrupt> {
        let unpublished = self.unpublished;
        let written = self.order(kind, slot, payload);
        self.unpublished = unpublished;
        written
    }

    /// Writes as many items of `stretch` as fit, up to `most`, as a run. Returns how many.
    pub(super) fn run(&mut self, slot: u32, stretch: &Stretch<'_>, most: usize, timed: bool) -> Result<u32, Corrupt> {
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
        self.finish_record(Kind::Run, slot, self.next_position, payload);
        self.next_position += items;
        Ok(items)
    }

    /// Returns whether the first item of `stretch` is too large for a run.
    pub(super) fn is_large(stretch: &Stretch<'_>) -> bool {
        stretch.bytes(1) + 4 + RunHeader::BYTES > MAX_PAYLOAD
    }

    /// Begins to send the first item of `stretch`, a large one. Returns false if there is no room even for its header.
    pub(super) fn begin_large(&mut self, slot: u32, stretch: &Stretch<'_>, timed: bool) -> Result<bool, Corrupt> {
        let length = stretch.bytes(1);
        let head = LargeHeader { length: length as u64, timed }.to_bytes();
        if self.to.room(HEADER_BYTES + head.len() + RESERVE)? < HEADER_BYTES + head.len() + RESERVE {
            return Ok(false);
        }
        self.to.space()[HEADER_BYTES..HEADER_BYTES + head.len()].copy_from_slice(&head);
        self.finish_record(Kind::Large, slot, self.next_position, head.len());
        self.next_position += 1;
        self.sending = Some(stretch.data.slice(stretch.offset..stretch.offset + length));
        self.continue_sending()?;
        Ok(true)
    }

    /// Sends as much of a large item as there is room for. Returns whether anything was written.
    pub(super) fn continue_sending(&mut self) -> Result<bool, Corrupt> {
        let Some(mut item) = self.sending.take() else { return Ok(false) };
        let mut any = false;
        while item.has_remaining() {
            let room = self.to.room(HEADER_BYTES + PIECE_BYTES + RESERVE)?.saturating_sub(HEADER_BYTES + RESERVE);
            let length = item.remaining().min(PIECE_BYTES);
            if room < length {
                self.sending = Some(item);
                break;
            }
            item.copy_to_slice(&mut self.to.space()[HEADER_BYTES..HEADER_BYTES + length]);
            self.finish_record(Kind::Piece, 0, 0, length);
            // The worker reads pieces while more are written.
            self.publish();
            any = true;
        }
        if self.sending.is_none() {
            for kind in std::mem::take(&mut self.deferred_orders) {
                self.order(kind, 0, &[])?;
            }
            self.publish();
        }
        Ok(any)
    }

    /// Publishes what was written to the worker, and wakes it if it sleeps.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.to.publish();
            self.wake_if_asleep();
        }
    }

    /// Releases what was read, so that a worker that waits for room continues.
    pub(super) fn release_read(&mut self) {
        self.from.publish();
        // It usually sleeps because it is idle, and must not be woken needlessly.
        if self.memory.status().room_is_wanted() {
            self.wake_if_asleep();
        }
    }

    /// Kills it with its process group, if the fork server cannot or did not.
    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            // An error means that they have ended already.
            let _ = process.signal(Signal::SIGKILL);
            let _ = process.signal_group(Signal::SIGKILL);
        }
    }

    /// Empties the socket of wake-ups. Returns false if the worker has closed it.
    pub(super) fn drain_socket(&self) -> bool {
        !matches!(
            recv(self.socket.as_raw_fd(), &mut [0; 256], MsgFlags::MSG_DONTWAIT),
            Ok(0) | Err(nix::errno::Errno::ECONNRESET)
        )
    }

    fn wake_if_asleep(&self) {
        if self.memory.status().worker_needs_doorbell() {
            // A full socket wakes it as well. An error means that it has exited, which its fork server reports.
            let _ = send(self.socket.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        }
    }

    fn finish_record(&mut self, kind: Kind, slot: u32, position: u32, length: usize) {
        let header =
            Header { length: u32::try_from(length).expect("a record's payload is small"), kind, slot, position };
        header.write(self.to.space());
        self.to.advance(HEADER_BYTES + length);
        self.unpublished = true;
    }
}
