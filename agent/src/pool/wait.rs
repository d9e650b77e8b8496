//! Sleeps without missed wake-ups: what wakes a pool, and when it must wake by itself.

use std::os::fd::BorrowedFd;

use farpool_link::RING_BYTES;
use farpool_link::clock;
use farpool_link::record::HEADER_BYTES;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::WorkerPool;
use super::stream::Stream;
use super::worker::{State, Worker};

/// Outcomes of quick items are collected for this long at most, so that they travel together.
const COLLECT_NS: u64 = 1_000_000;
/// How often to check whether a cancelled item has begun that was still on its way to its worker.
const CANCEL_LOOK_NS: u64 = 10_000_000;

/// The descriptor of a pool that an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    ForkServer,
    /// The socket of the worker with this number.
    Socket(u32),
    /// The stderr of the worker with this number.
    Stderr(u32),
    /// Its stdout.
    Stdout(u32),
    ForkServerStderr,
}

impl Token {
    /// Makes `epoll` report the descriptor with this token. `serial`: the pool's number in this agent.
    pub(super) fn watch(self, epoll: &Epoll, serial: u64, fd: BorrowedFd<'_>) {
        // An error would mean an invalid descriptor or no memory.
        let _ = epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, self.pack(serial)));
    }

    fn pack(self, serial: u64) -> u64 {
        let (kind, number) = match self {
            Token::ForkServer => (0, 0),
            Token::Socket(number) => (1, number),
            Token::Stderr(number) => (2, number),
            Token::Stdout(number) => (3, number),
            Token::ForkServerStderr => (0, 1),
        };
        (serial & 0x3fff_ffff) << 34 | kind << 32 | u64::from(number)
    }

    /// Returns the token in an event's data, if it belongs to the pool with this number.
    pub(crate) fn unpack(data: u64, serial: u64) -> Option<Token> {
        let number = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        if data >> 34 != serial & 0x3fff_ffff {
            return None;
        }
        Some(match (data >> 32 & 3, number) {
            (0, 0) => Token::ForkServer,
            (0, _) => Token::ForkServerStderr,
            (1, _) => Token::Socket(number),
            (2, _) => Token::Stderr(number),
            _ => Token::Stdout(number),
        })
    }
}

/// Whether and how long the driver may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// There is work now.
    Busy,
    /// It may sleep until a descriptor is ready or until this time (CLOCK_MONOTONIC, ns).
    Until(Option<u64>),
}

impl WorkerPool {
    /// Handles a ready descriptor.
    pub(crate) fn ready(&mut self, token: Token) {
        let now = clock::now();
        match token {
            Token::ForkServer => self.fork_server_ready(now),
            Token::Socket(number) => self.socket_ready(number, now),
            Token::Stdout(_) | Token::Stderr(_) | Token::ForkServerStderr => self.output_ready(token, now),
        }
    }

    /// Asks the workers to wake the agent when there is work, so that it may sleep until then.
    pub(crate) fn arm(&mut self) -> Armed {
        if self.has_rejected() || std::mem::take(&mut self.needs_another_round) {
            return Armed::Busy;
        }
        let now = clock::now();
        let mut deadline = self.supervision.deadline(self.may_start());
        let quick = self.threads == 1 && self.pace.is_quick();
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            if !self.held && (worker.may_have_records() || worker.wants_room) && worker.arm(quick, now) {
                return Armed::Busy;
            }
            let collect = worker.armed_at.filter(|at| *at > worker.finished + 1).map(|_| now + COLLECT_NS);
            let output = worker.output_due();
            let termination = worker.termination.map(|termination| termination.at);
            // A cancelled item that could not be taken back is ended once it begins, which no event reports.
            let cancelled = worker.cancel_at.map(|at| at.max(now + CANCEL_LOOK_NS));
            let due = self.due(at).map(|(due, _)| due);
            deadline = [deadline, collect, output, termination, cancelled, due].into_iter().flatten().min();
        }
        let of_fork_server = self.fork_server_stderr.as_ref().and_then(Stream::due);
        deadline =
            [deadline, of_fork_server, self.time_to_move(now), self.time_to_replace()].into_iter().flatten().min();
        match deadline {
            Some(time) if time <= now => Armed::Busy,
            other => Armed::Until(other),
        }
    }
}

impl Worker {
    /// Asks to be woken. Returns true if there is something to read or to write already.
    fn arm(&mut self, quick: bool, now: u64) -> bool {
        let outstanding = self.outstanding();
        // Outcomes of quick items are collected, unless this worker has come to a long item.
        let stalled = now.saturating_sub(self.progress.2) >= COLLECT_NS;
        let ahead = if quick && !stalled && self.state == State::Ready && self.receiving.is_none() {
            outstanding / 2
        } else {
            0
        };
        let at = self.finished + ahead.max(1);
        self.memory.status().agent_sleeps(at);
        self.armed_at = Some(at);
        if self.wants_room {
            self.memory.status().want_space();
            if self.to.room(RING_BYTES).is_ok_and(|room| room > RING_BYTES / 2) {
                return true;
            }
        }
        self.from.available(HEADER_BYTES).map_or(true, |bytes| bytes >= HEADER_BYTES)
    }
}
