//! Supervises the processes: one round of it, and the fork server's replies.

use farpool_link::message::Reply;
use farpool_proto::v1::FailureKind;
use nix::errno::Errno;

use super::start::Starts;
use super::stop::{CLOSE_GRACE_NS, Stopping};
use super::stream::Stream;
use super::worker::Worker;
use super::{Token, WorkerPool};
use crate::fork_server::{ForkServer, Program};

/// Most replies of a fork server that are read at once, so that a flood delays nobody else.
const MAX_REPLIES: usize = 256;
/// Most invalid replies of one fork server. A few late ones are normal.
const MAX_INVALID_REPLIES: u32 = 4096;

/// The state of a pool's processes.
#[derive(Debug)]
pub(super) struct Supervision {
    pub(super) program: Program,
    pub(super) fork_server: ForkServer,
    /// When it was started.
    pub(super) since: u64,
    /// Time for a worker without an initializer to become ready, and for the program to reach `farpool::init()`.
    pub(super) start_limit: u64,
    /// Whether the program has reached `farpool::init()`.
    pub(super) up: bool,
    /// Replies of this fork server that named no worker, or were repeated.
    invalid_replies: u32,
    pub(super) next_number: u32,
    pub(super) starts: Starts,
    /// When to restart the fork server after it was killed.
    pub(super) restart_at: Option<u64>,
    pub(super) stopping: Stopping,
    /// The coordinator requested the stop.
    pub(super) stop_requested: bool,
}

impl Supervision {
    pub(super) fn new(
        program: Program,
        fork_server: ForkServer,
        start_limit: u64,
        retries_starts: bool,
        now: u64,
    ) -> Supervision {
        Supervision {
            program,
            fork_server,
            since: now,
            start_limit,
            up: false,
            invalid_replies: 0,
            next_number: 0,
            starts: Starts::new(now, retries_starts),
            restart_at: None,
            stopping: Stopping::No,
            stop_requested: false,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    /// Returns when something is due that no descriptor reports.
    pub(super) fn deadline(&self, wants_workers: bool) -> Option<u64> {
        match self.stopping {
            _ if self.restart_at.is_some() => self.restart_at,
            Stopping::No if !self.up => Some(self.since.saturating_add(self.start_limit)),
            Stopping::No | Stopping::WhenIdle if wants_workers => Some(self.starts.next_at),
            Stopping::Closing { since } => Some(since + CLOSE_GRACE_NS),
            _ => None,
        }
    }
}

impl WorkerPool {
    /// Does one round of supervision.
    pub(super) fn supervise(&mut self, now: u64) {
        self.resume_output(now);
        self.terminate_overdue(now);
        self.advance_terminations(now);
        if let Some(restart_at) = self.supervision.restart_at {
            if self.supervision.is_stopping() {
                self.stopped();
            } else if now >= restart_at {
                self.restart_fork_server(now);
            }
        } else if self.supervision.is_stopping() {
            self.advance_stop(now);
            self.stop_retired_workers(now);
            self.start_workers(now);
        } else if !self.supervision.up && now >= self.supervision.since.saturating_add(self.supervision.start_limit) {
            let failure = self.init_timed_out(now);
            self.fail(failure);
        } else {
            self.stop_retired_workers(now);
            self.start_workers(now);
        }
    }

    pub(super) fn watch_fork_server(&mut self) {
        if let Some(socket) = self.supervision.fork_server.socket() {
            Token::ForkServer.watch(&self.epoll, self.serial, socket);
        }
        if let Some(pipe) = self.fork_server_stderr.as_ref().and_then(Stream::pipe) {
            Token::ForkServerStderr.watch(&self.epoll, self.serial, pipe);
        }
    }

    /// Handles replies of the fork server, up to a bound; epoll reports the rest again.
    pub(super) fn fork_server_ready(&mut self, now: u64) {
        for _ in 0..MAX_REPLIES {
            let known = match self.supervision.fork_server.next_reply() {
                Ok(None) => return,
                Ok(Some(Reply::Hello)) => !std::mem::replace(&mut self.supervision.up, true),
                Ok(Some(Reply::Spawned { worker, pid })) => {
                    match self.workers.iter_mut().find(|known| known.number == worker) {
                        Some(worker) => {
                            // The pid is good enough for errors; only a child of the fork server is ever killed.
                            worker.process = self.supervision.fork_server.child(pid);
                            std::mem::replace(&mut worker.pid, pid) == 0 && pid > 0
                        }
                        None => false,
                    }
                }
                Ok(Some(Reply::SpawnFailed { worker, errno })) => {
                    self.spawn_failed(worker, Errno::from_raw(errno), now)
                }
                Ok(Some(Reply::Exited { worker, status })) => {
                    let at = self.workers.iter().position(|known| known.number == worker);
                    if let Some(at) = at {
                        self.worker_exited(at, Some(status), now);
                    }
                    at.is_some()
                }
                Err(_) => return self.fork_server_gone(now),
            };
            self.supervision.invalid_replies += u32::from(!known);
            if self.supervision.invalid_replies > MAX_INVALID_REPLIES {
                return self.kill_flooding_fork_server(now);
            }
        }
    }

    /// Kills a fork server that floods this process with invalid messages.
    fn kill_flooding_fork_server(&mut self, now: u64) {
        let message = format!(
            "the program's fork server broke the protocol: it sent {MAX_INVALID_REPLIES} invalid messages; it was killed with its workers"
        );
        self.fail(self.failure(FailureKind::ProgramRejected, message));
        self.supervision.fork_server.kill_server();
        self.fork_server_gone(now);
    }

    fn fork_server_gone(&mut self, now: u64) {
        self.supervision.fork_server.end();
        let any_ready = self.workers.iter().any(|worker| worker.was_ready);
        // The workers die with their fork server, but not the processes that their tasks started.
        self.workers.iter().for_each(Worker::kill);
        while !self.workers.is_empty() {
            self.worker_exited(0, None, now);
        }
        if self.supervision.is_stopping() {
            self.stopped();
        } else if !self.supervision.up {
            let failure = self.exited_before_init(now);
            self.fail(failure);
            self.stopped();
        } else {
            if !any_ready {
                self.start_failed(now, || "the fork server was killed".into());
            }
            match self.supervision.is_stopping() {
                true => self.stopped(),
                false => {
                    self.supervision.up = false;
                    self.supervision.restart_at = Some(self.supervision.starts.next_at);
                }
            }
        }
    }

    fn restart_fork_server(&mut self, now: u64) {
        self.supervision.restart_at = None;
        match start_fork_server(&self.supervision.program, self.forwarder.is_some()) {
            Ok((fork_server, stderr)) => {
                self.drain_fork_server_stderr(now);
                (self.supervision.fork_server, self.fork_server_stderr) = (fork_server, stderr);
                (self.supervision.since, self.supervision.invalid_replies) = (now, 0);
                self.watch_fork_server();
            }
            Err(error) => {
                let message = format!("cannot restart the fork server after it was killed: {error}");
                self.fail(self.failure(FailureKind::Unavailable, message));
                self.stopped();
            }
        }
    }
}

/// Starts the program. Returns its stderr, too, if it is captured.
pub(super) fn start_fork_server(program: &Program, capture: bool) -> std::io::Result<(ForkServer, Option<Stream>)> {
    let (stream, theirs) = if capture { Some(Stream::new()?) } else { None }.unzip();
    Ok((ForkServer::start(program, theirs)?, stream))
}
