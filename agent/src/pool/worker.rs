//! One worker as the agent sees it: its process, its link, and what it was given.

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

/// Room that runs and pieces leave in the ring, so that short orders always fit.
const RESERVE: usize = 4096;
/// Largest run written at once: small enough that a worker begins before all of it is copied.
const RUN_BYTES: usize = 256 << 10;

/// A worker process and all that the agent knows of it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: u32,
    /// What the fork server calls it; 0: its word has not come yet.
    pub(super) pid: u32,
    /// The process of that number, if that is a child of the fork server.
    pub(super) process: Option<Process>,
    /// What it calls itself, which may be known earlier: good enough for errors, and for nothing else.
    pub(super) claimed_pid: u32,
    pub(super) state: State,
    /// It has become ready: its initializer, if there is one, has returned.
    pub(super) was_ready: bool,
    /// When it was asked for, in nanoseconds.
    pub(super) born: u64,
    pub(super) memory: Arc<Memory>,
    pub(super) to: Writer,
    pub(super) from: Reader,
    pub(super) socket: OwnedFd,
    /// None: it writes to this process's stdout.
    pub(super) stdout: Option<Stream>,
    pub(super) stderr: Stream,
    /// Items that it was given and that are not finished, in the order of their positions.
    pub(super) given: VecDeque<Given>,
    /// What is left of a chunk that must stay together and of which it has the first part.
    pub(super) rest: Option<Piece>,
    /// It could not be given all that was there for it, for want of room in its ring.
    pub(super) wants_room: bool,
    /// Position of the next item that it is given: as many as it was given so far.
    pub(super) next_position: u32,
    /// Items that it has finished.
    pub(super) finished: u64,
    /// Items that it had finished when it last said how long a run took.
    pub(super) measured: u64,
    /// So often it has said how long a run took.
    pub(super) run_ends: u64,
    /// Why its initializer failed; it leaves by itself.
    pub(super) init_failure: Option<Failure>,
    /// The jobs whose functions it knows, by their numbers in the pool.
    pub(super) knows: Vec<bool>,
    /// A large item, or the settings, half of it on its way.
    pub(super) sending: Option<Bytes>,
    /// A large result, half of it here.
    pub(super) receiving: Option<Receiving>,
    /// Orders that are to follow a large item which is half on its way.
    orders_behind: Vec<Kind>,
    /// Something was taken back from it, since when it has not passed that place.
    pub(super) revoking: bool,
    pub(super) revoked_at: u64,
    /// What it has written makes no sense: nothing more is read of it.
    pub(super) broken: bool,
    /// Something was written that it has not been shown.
    unpublished: bool,
    pub(super) ending: Option<Ending>,
    /// It has items that nobody wants any more and is ended at this time unless it has finished them.
    pub(super) cancel_at: Option<u64>,
    /// All its items wait for other items: it does not use its slot.
    pub(super) lent: bool,
    /// The items whose clients wait, by their positions: the slot is lent while one of them runs alone.
    pub(super) lend_for: Vec<u32>,
    /// It gets nothing more until others have had their turn.
    pub(super) gives_way: bool,
    /// It is about to end; others wait for its slot until this time at most.
    pub(super) gone_by: Option<u64>,
    /// When the agent last saw it finish or begin something: (items finished, items claimed, at).
    pub(super) progress: (u64, u32, u64),
    /// The agent waits for it to finish so many items before it wants to be woken; see `WorkerPool::arm`.
    pub(super) armed_at: Option<u64>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not ready yet: starting, or in its initializer.
    Starting,
    /// Takes items.
    Ready,
    /// Finishes what it has and gets no more: it has run as many items as one worker may.
    Retiring,
    /// Was told to leave.
    Leaving,
    /// Its end was ordered; see [`Worker::ending`].
    Dying,
}

/// How the end of a worker that was ordered goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) reason: Reason,
    /// When the next, harder step is due.
    pub(super) at: u64,
    /// SIGTERM was sent.
    pub(super) asked: bool,
    /// SIGKILL was sent, by the fork server.
    pub(super) insisted: bool,
    /// And again by the agent itself.
    pub(super) alone: bool,
}

/// Consecutive items of a chunk that a worker was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) chunk: u32,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Position of the first one.
    pub(super) position: u32,
    /// So many of them are finished, from the first on.
    pub(super) done: u32,
    /// When it was given them.
    pub(super) since: u64,
}

impl Given {
    /// Items that are not finished.
    pub(super) fn left(&self) -> u32 {
        self.count - self.done
    }

    /// Position of the first item that is not finished.
    pub(super) fn next(&self) -> u32 {
        self.position + self.done
    }

    /// The position behind the last one.
    pub(super) fn end(&self) -> u32 {
        self.position + self.count
    }

    /// Which item of the job lies at `position`, if it is one of these and not finished.
    pub(super) fn item_at(&self, position: u32) -> Option<u64> {
        let known = (self.next()..self.end()).contains(&position);
        known.then(|| self.first + u64::from(position - self.position))
    }
}

/// A worker's ends of what connects it, for its start.
#[derive(Debug)]
pub(super) struct WorkerEnds {
    pub(super) memory: OwnedFd,
    pub(super) socket: OwnedFd,
    /// None: this process's own.
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: OwnedFd,
}

impl Worker {
    /// Prepares the agent's end of a worker and writes its settings, the first thing that it will read.
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
            claimed_pid: 0,
            state: State::Starting,
            was_ready: false,
            born: now,
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
            knows: Vec::new(),
            sending: None,
            receiving: None,
            orders_behind: Vec::new(),
            revoking: false,
            revoked_at: now,
            broken: false,
            unpublished: false,
            ending: None,
            cancel_at: None,
            lent: false,
            lend_for: Vec::new(),
            gives_way: false,
            gone_by: None,
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
        // What every call needs goes to the workers this way, and may be large.
        let head = LargeHeader { length: settings.len() as u64, timed: false }.to_bytes();
        let begun = self.order(Kind::LargeSetup, 0, &head)?;
        self.sending = Some(settings.into());
        self.go_on_sending()?;
        Ok(begun)
    }

    /// Its process id, as far as it is known; 0: not yet.
    pub(super) fn known_pid(&self) -> u32 {
        if self.pid == 0 { self.claimed_pid } else { self.pid }
    }

    /// Items that it was given and has not finished.
    pub(super) fn outstanding(&self) -> u64 {
        self.given.iter().map(|given| u64::from(given.left())).sum()
    }

    /// Items that it was given and has not begun.
    pub(super) fn not_begun(&self) -> u32 {
        let claimed = self.memory.status().claimed();
        self.given.iter().map(|given| given.end().saturating_sub(given.position.max(claimed))).sum()
    }

    /// Items that wait behind others that it runs; the next ones that it will begin anyway are not among them.
    pub(super) fn waiting(&self, threads: usize) -> u32 {
        let not_begun = self.not_begun();
        let begun = self.outstanding().saturating_sub(u64::from(not_begun));
        let free = u32::try_from((threads as u64).saturating_sub(begun)).unwrap_or(u32::MAX);
        not_begun.saturating_sub(free)
    }

    /// Whether it can be given items now.
    pub(super) fn takes_items(&self) -> bool {
        self.state == State::Ready && self.sending.is_none() && !self.revoking && !self.lent && !self.gives_way
    }

    /// Writes a short order; false if even the reserve is used up.
    pub(super) fn order(&mut self, kind: Kind, slot: u32, payload: &[u8]) -> Result<bool, Corrupt> {
        let bytes = HEADER_BYTES + payload.len();
        if self.to.room(bytes)? < bytes {
            return Ok(false);
        }
        self.to.space()[HEADER_BYTES..bytes].copy_from_slice(payload);
        self.finish_record(kind, slot, 0, payload.len());
        Ok(true)
    }

    /// As [`Worker::order`], for what has no payload. Behind a large item of which not all is written it follows by
    /// itself.
    pub(super) fn order_behind(&mut self, kind: Kind) -> Result<bool, Corrupt> {
        if self.sending.is_some() {
            self.orders_behind.push(kind);
            return Ok(true);
        }
        self.order(kind, 0, &[])
    }

    /// As [`Worker::order`], for what it is not to be woken for: it reads it together with whatever comes next.
    pub(super) fn order_for_later(&mut self, kind: Kind, slot: u32, payload: &[u8]) -> Result<bool, Corrupt> {
        let unpublished = self.unpublished;
        let written = self.order(kind, slot, payload);
        self.unpublished = unpublished;
        written
    }

    /// Writes as many of the items of `stretch` as fit, `most` at most, as a run; returns how many.
    pub(super) fn run(&mut self, slot: u32, stretch: &Stretch<'_>, most: usize, timed: bool) -> Result<u32, Corrupt> {
        let overhead = HEADER_BYTES + RunHeader::BYTES;
        let room = self.to.room(RUN_BYTES + overhead + RESERVE)?.saturating_sub(overhead + RESERVE);
        let mut count = stretch.fitting(most, room.min(RUN_BYTES));
        // One item may be as large as a record; more of them only up to a run's usual size.
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

    /// Whether the first item of `stretch` is too large for a run.
    pub(super) fn is_large(stretch: &Stretch<'_>) -> bool {
        stretch.bytes(1) + 4 + RunHeader::BYTES > MAX_PAYLOAD
    }

    /// Begins to send the first item of `stretch`, a large one; false if there is no room even for that.
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
        self.go_on_sending()?;
        Ok(true)
    }

    /// Sends as much of a large item as there is room for; returns whether anything was written.
    pub(super) fn go_on_sending(&mut self) -> Result<bool, Corrupt> {
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
            // The worker takes pieces out while more are written.
            self.show();
            any = true;
        }
        if self.sending.is_none() {
            for kind in std::mem::take(&mut self.orders_behind) {
                self.order(kind, 0, &[])?;
            }
            self.show();
        }
        Ok(any)
    }

    /// Shows the worker what was written, and wakes it if it sleeps.
    pub(super) fn show(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.to.publish();
            self.wake_if_asleep();
        }
    }

    /// Hands back what was read, so that a worker that waits for room goes on.
    pub(super) fn hand_back(&mut self) {
        self.from.publish();
        // As a rule it sleeps because it has nothing to do, and must not be woken for nothing.
        if self.memory.status().room_is_wanted() {
            self.wake_if_asleep();
        }
    }

    /// Kills it with its process group, where the fork server cannot do it any more, or has not.
    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            // Errors mean that nothing is left of them.
            let _ = process.signal(Signal::SIGKILL);
            let _ = process.signal_group(Signal::SIGKILL);
        }
    }

    /// Empties the socket of wake-ups; false when the worker has closed it.
    pub(super) fn heard(&self) -> bool {
        !matches!(
            recv(self.socket.as_raw_fd(), &mut [0; 256], MsgFlags::MSG_DONTWAIT),
            Ok(0) | Err(nix::errno::Errno::ECONNRESET)
        )
    }

    fn wake_if_asleep(&self) {
        if self.memory.status().worker_needs_doorbell() {
            // A full socket wakes it as well; an error means that it has ended, which its fork server will tell.
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
