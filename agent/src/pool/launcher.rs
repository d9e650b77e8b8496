//! A pool's program and the fork server that starts its workers.

use std::io;
use std::os::fd::BorrowedFd;

use farpool_link::message::Reply;
use farpool_link::process::Process;
use nix::sys::signal::Signal;

use super::death::format_nanoseconds;
use super::round::Round;
use super::stream::Stream;
use super::wait::Token;
use crate::fork_server::kept::{self, Origin};
use crate::fork_server::{ForkServer, Program};

/// Most invalid replies of one fork server. A few late ones are normal.
pub(super) const MAX_INVALID_REPLIES: u32 = 4096;

/// Starts workers, and the fork server that they are forked from.
#[derive(Debug)]
pub(super) struct Launcher {
    program: Program,
    /// The program came with the pool; otherwise it is the program of this process.
    shipped: bool,
    fork_server: ForkServer,
    /// What the fork server was started from, if it may be kept for the next pool.
    origin: Option<Origin>,
    /// Nothing of this pool is left in it.
    cleared: bool,
    /// When it was started.
    since: u64,
    /// Whether the program has reached `farpool::init()`.
    up: bool,
    /// Replies of this fork server that named no worker, or were repeated.
    invalid_replies: u32,
    next_number: u32,
    /// When to restart the fork server after it was killed.
    restart_at: Option<u64>,
}

impl Launcher {
    pub(super) fn new(program: Program, shipped: bool, started: Started, now: u64) -> Launcher {
        let Started { fork_server, origin, up } = started;
        Launcher {
            program,
            shipped,
            fork_server,
            origin,
            cleared: false,
            since: now,
            up,
            invalid_replies: 0,
            next_number: 0,
            restart_at: None,
        }
    }

    /// Makes the agent's epoll report its replies.
    pub(super) fn watch(&self, round: &Round) {
        if let Some(socket) = self.fork_server.socket() {
            round.watch(Token::ForkServer, socket);
        }
    }

    /// Returns whether the program has reached `farpool::init()`.
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Returns the fork server's process id.
    pub(super) fn pid(&self) -> u32 {
        self.fork_server.pid()
    }

    /// Returns when the program must have reached `farpool::init()`.
    pub(super) fn must_be_up_at(&self, round: &Round) -> u64 {
        self.since.saturating_add(round.start_limit)
    }

    /// Returns the number of the next worker.
    pub(super) fn next_number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Requests a worker with this shared memory, socket, stdout and stderr.
    pub(super) fn spawn(&self, worker: u32, descriptors: [BorrowedFd<'_>; 4]) -> nix::Result<()> {
        self.fork_server.spawn(worker, descriptors)
    }

    /// Requests a signal to a worker, its process group and its descendants.
    pub(super) fn signal(&self, worker: u32, signal: Signal) {
        // An error means that the fork server is gone, and the worker with it.
        let _ = self.fork_server.kill(worker, signal);
    }

    /// Returns the process with this id, if it is a child of the fork server.
    pub(super) fn child(&self, pid: u32) -> Option<Process> {
        self.fork_server.child(pid)
    }

    /// Returns the next reply; `Ok(None)` if there is none now.
    ///
    /// # Errors
    /// If the fork server has ended.
    pub(super) fn next_reply(&self) -> nix::Result<Option<Reply>> {
        self.fork_server.next_reply()
    }

    /// Records that the program has reached `farpool::init()`. Returns false if it had before.
    pub(super) fn came_up(&mut self) -> bool {
        !std::mem::replace(&mut self.up, true)
    }

    /// Counts an invalid reply. Returns whether there were too many.
    pub(super) fn count_invalid_reply(&mut self) -> bool {
        self.invalid_replies += 1;
        self.invalid_replies > MAX_INVALID_REPLIES
    }

    /// Tells the fork server to exit, or to prepare for the next pool.
    pub(super) fn close(&mut self) {
        if self.origin.is_none() || !self.up || self.fork_server.clear().is_err() {
            self.origin = None;
            self.fork_server.close();
        }
    }

    /// Records that nothing of this pool is left in the fork server, which was told to prepare for the next one.
    pub(super) fn mark_cleared(&mut self, round: &Round) {
        if let Some(socket) = self.fork_server.socket() {
            round.unwatch(socket);
        }
        self.cleared = true;
    }

    /// Keeps the fork server for the next pool, if it is prepared for it.
    pub(super) fn keep(self) {
        if let (true, Some(origin)) = (self.cleared, self.origin) {
            kept::keep(self.fork_server, origin);
        }
    }

    /// Kills the fork server; its workers die with it.
    pub(super) fn kill(&mut self) {
        self.fork_server.kill_server();
    }

    /// Reaps a fork server that has closed its connection.
    pub(super) fn end(&mut self) {
        self.fork_server.end();
    }

    /// Schedules a restart of the fork server, which was killed.
    pub(super) fn schedule_restart(&mut self, at: u64) {
        self.up = false;
        self.restart_at = Some(at);
    }

    pub(super) fn restart_at(&self) -> Option<u64> {
        self.restart_at
    }

    /// Restarts the fork server. Returns its stderr, if it is to be captured.
    pub(super) fn restart(&mut self, capture: bool, now: u64) -> io::Result<Option<Stream>> {
        self.restart_at = None;
        let (started, stderr) = start_fork_server(&self.program, capture)?;
        (self.fork_server, self.origin, self.up) = (started.fork_server, started.origin, started.up);
        (self.since, self.invalid_replies) = (now, 0);
        Ok(stderr)
    }

    /// Describes how the program ended before it reached `farpool::init()`.
    pub(super) fn describe_exit(&mut self) -> String {
        format!("ended ({}) before it reached farpool::init()", self.fork_server.exit_description())
    }

    /// Describes that the program did not reach `farpool::init()` in time.
    pub(super) fn describe_delay(&self, round: &Round) -> String {
        format!("did not reach farpool::init() within {}", format_nanoseconds(round.start_limit))
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    /// Returns whether the program came with the pool.
    pub(super) fn is_shipped(&self) -> bool {
        self.shipped
    }
}

/// A fork server that was started, for this pool or an earlier one.
pub(super) struct Started {
    fork_server: ForkServer,
    /// What it was started from, if it may be kept for the next pool.
    origin: Option<Origin>,
    /// Whether it has reached `farpool::init()`.
    up: bool,
}

/// Starts the program, unless its fork server was kept. Returns its stderr, too, if it is captured.
pub(super) fn start_fork_server(program: &Program, capture: bool) -> io::Result<(Started, Option<Stream>)> {
    let origin = (program.keep && !capture).then(|| Origin::of(program));
    if let Some(fork_server) = origin.as_ref().and_then(kept::take) {
        return Ok((Started { fork_server, origin, up: true }, None));
    }
    let (stream, theirs) = if capture { Some(Stream::new()?) } else { None }.unzip();
    Ok((Started { fork_server: ForkServer::start(program, theirs)?, origin, up: false }, stream))
}
