//! Looking after the processes: one round of it, and what the fork server tells.

use farpool_link::message::Reply;
use farpool_proto::v1::FailureKind;
use nix::errno::Errno;

use super::start::Starts;
use super::stop::{CLOSE_GRACE_NS, Stopping};
use super::stream::Stream;
use super::worker::Worker;
use super::{Token, WorkerPool};
use crate::fork_server::{ForkServer, Program};

/// Replies of a fork server that are taken in at once, so that one without end keeps nobody else waiting.
const REPLIES: usize = 256;
/// So many replies of one fork server may be about nothing. Late ones are ordinary; more are not.
const STRAYS: u32 = 4096;

/// What is known of the processes as a whole.
#[derive(Debug)]
pub(super) struct Supervision {
    pub(super) program: Program,
    pub(super) fork_server: ForkServer,
    /// When it was started.
    pub(super) since: u64,
    /// Time for a worker without an initializer to become ready, and for the program to reach `farpool::init()`.
    pub(super) start_limit: u64,
    /// The program has reached `farpool::init()`.
    pub(super) up: bool,
    /// Replies of this fork server that were about no worker, or told something a second time.
    strays: u32,
    pub(super) next_number: u32,
    pub(super) starts: Starts,
    /// The fork server was killed: when it is to be started again.
    pub(super) restart_at: Option<u64>,
    pub(super) stopping: Stopping,
    /// The coordinator knows that it stops.
    pub(super) told_to_stop: bool,
}

impl Supervision {
    pub(super) fn new(
        program: Program,
        fork_server: ForkServer,
        start_limit: u64,
        keeps_trying: bool,
        now: u64,
    ) -> Supervision {
        Supervision {
            program,
            fork_server,
            since: now,
            start_limit,
            up: false,
            strays: 0,
            next_number: 0,
            starts: Starts::new(now, keeps_trying),
            restart_at: None,
            stopping: Stopping::No,
            told_to_stop: false,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    /// When something is due that no descriptor will tell.
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
    /// One round of looking after everything.
    pub(super) fn supervise(&mut self, now: u64) {
        self.go_on_with_output(now);
        self.end_overdue(now);
        self.go_on_ending(now);
        if let Some(restart_at) = self.supervision.restart_at {
            if self.supervision.is_stopping() {
                self.stopped();
            } else if now >= restart_at {
                self.restart_fork_server(now);
            }
        } else if self.supervision.is_stopping() {
            self.go_on_stopping(now);
            self.let_retired_workers_leave(now);
            self.start_workers(now);
        } else if !self.supervision.up && now >= self.supervision.since.saturating_add(self.supervision.start_limit) {
            let failure = self.took_too_long(now);
            self.fail(failure);
        } else {
            self.let_retired_workers_leave(now);
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

    /// What the fork server has told, up to a bound: the epoll tells again that there is more.
    pub(super) fn fork_server_ready(&mut self, now: u64) {
        for _ in 0..REPLIES {
            let known = match self.supervision.fork_server.next_reply() {
                Ok(None) => return,
                Ok(Some(Reply::Hello)) => !std::mem::replace(&mut self.supervision.up, true),
                Ok(Some(Reply::Spawned { worker, pid })) => {
                    match self.workers.iter_mut().find(|known| known.number == worker) {
                        Some(worker) => {
                            // Believed in errors, which harms nobody; killed is only what is its child.
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
                        self.bury(at, Some(status), now);
                    }
                    at.is_some()
                }
                Err(_) => return self.fork_server_gone(now),
            };
            self.supervision.strays += u32::from(!known);
            if self.supervision.strays > STRAYS {
                return self.end_babbler(now);
            }
        }
    }

    /// The fork server says things without end that mean nothing, which would keep this process busy for nothing.
    fn end_babbler(&mut self, now: u64) {
        let message = format!(
            "the program's fork server broke the protocol: it sent {STRAYS} invalid messages; it was killed with its workers"
        );
        self.fail(self.failure(FailureKind::ProgramRejected, message));
        self.supervision.fork_server.force();
        self.fork_server_gone(now);
    }

    fn fork_server_gone(&mut self, now: u64) {
        self.supervision.fork_server.end();
        let fruitful = self.workers.iter().any(|worker| worker.was_ready);
        // The workers end with their fork server, but not what their tasks have started.
        self.workers.iter().for_each(Worker::kill);
        while !self.workers.is_empty() {
            self.bury(0, None, now);
        }
        if self.supervision.is_stopping() {
            self.stopped();
        } else if !self.supervision.up {
            let failure = self.ended_too_early(now);
            self.fail(failure);
            self.stopped();
        } else {
            if !fruitful {
                self.start_was_fruitless(now, || "the fork server was killed".into());
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
        match start_fork_server(&self.supervision.program, self.teller.is_some()) {
            Ok((fork_server, stderr)) => {
                self.last_words_of_fork_server(now);
                (self.supervision.fork_server, self.fork_server_stderr) = (fork_server, stderr);
                (self.supervision.since, self.supervision.strays) = (now, 0);
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

/// Starts the program; and its stderr, if that is to be read.
pub(super) fn start_fork_server(program: &Program, capture: bool) -> std::io::Result<(ForkServer, Option<Stream>)> {
    let (stream, theirs) = if capture { Some(Stream::new()?) } else { None }.unzip();
    Ok((ForkServer::start(program, theirs)?, stream))
}
