//! Sleeping without missing anything: what wakes a pool, and when it must wake by itself.

use std::os::fd::BorrowedFd;

use farpool_link::RING_BYTES;
use farpool_link::clock;
use farpool_link::record::HEADER_BYTES;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::WorkerPool;
use super::stream::Stream;
use super::worker::{State, Worker};

/// Outcomes of quick items wait for each other this long at most, so that they travel together.
const COLLECT_NS: u64 = 1_000_000;
/// How often it is looked whether a cancelled item has begun that is still on its way to its worker.
const CANCEL_LOOK_NS: u64 = 10_000_000;

/// Which descriptor of a pool an epoll event is about.
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
    /// Has `epoll` report the descriptor under this token. `serial`: the pool's number in this agent.
    pub(super) fn watch(self, epoll: &Epoll, serial: u64, fd: BorrowedFd<'_>) {
        // An error would mean that the descriptor is none, or that memory has run out.
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

    /// The token in an event's data, if it is one of the pool with this number.
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

/// Whether, and how long, a pool may be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// There is something to do now.
    Busy,
    /// Until a descriptor is ready or, if there is one, until this time (CLOCK_MONOTONIC, ns).
    Until(Option<u64>),
}

impl WorkerPool {
    /// A descriptor is ready.
    pub(crate) fn ready(&mut self, token: Token) {
        let now = clock::now();
        match token {
            Token::ForkServer => self.fork_server_ready(now),
            Token::Socket(number) => self.socket_ready(number, now),
            Token::Stdout(_) | Token::Stderr(_) | Token::ForkServerStderr => self.output_ready(token, now),
        }
    }

    /// Asks the workers to wake the agent when there is something to do, which may be left undone until then.
    pub(crate) fn arm(&mut self) -> Armed {
        if self.has_refused() || std::mem::take(&mut self.unsettled) {
            return Armed::Busy;
        }
        let now = clock::now();
        let mut deadline = self.supervision.deadline(self.may_start());
        let quick = self.threads == 1 && self.pace.is_quick();
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            if !self.held && (worker.may_have_news() || worker.wants_room) && worker.arm(quick, now) {
                return Armed::Busy;
            }
            let collect = worker.armed_at.filter(|at| *at > worker.finished + 1).map(|_| now + COLLECT_NS);
            let output = worker.output_due();
            let ending = worker.ending.map(|ending| ending.at);
            // What is cancelled and could not be taken back ends once it begins, of which nobody tells.
            let cancelled = worker.cancel_at.map(|at| at.max(now + CANCEL_LOOK_NS));
            let due = self.due(at).map(|(due, _)| due);
            deadline = [deadline, collect, output, ending, cancelled, due].into_iter().flatten().min();
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
    /// Asks to be woken; true if there is something to read, or to write, already.
    fn arm(&mut self, quick: bool, now: u64) -> bool {
        let outstanding = self.outstanding();
        // Streams of quick items are collected, unless this one has come to a long item.
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
