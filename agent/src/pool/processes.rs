//! Supervises the processes of a pool: starts workers, handles their exits, terminates those that take too long, and
//! stops the pool.

use std::os::fd::AsFd;

use farpool_link::message::Reply;
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{Failure, FailureKind, PoolStopped};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::WorkerPool;
use super::death::{Death, Reason, format_nanoseconds};
use super::launcher::MAX_INVALID_REPLIES;
use super::not_started;
use super::output::{Server, Streams};
use super::stop::{CLOSE_GRACE_NS, Stopping};
use super::wait::Token;
use super::worker::{NextStep, Remains, Victim, Worker};
use crate::standard::HoldStandard;

/// Most replies of a fork server that are read at once, so that a flood delays nothing else.
const MAX_REPLIES: usize = 256;

impl WorkerPool {
    /// Does one round of supervision.
    pub(super) fn supervise(&mut self) {
        let (now, server) = (self.round.now, self.server());
        let crew = &self.crew;
        self.output.resume(|number| crew.pid_of(number), server, &mut self.round);
        self.terminate_overdue();
        self.advance_terminations();
        if let Some(restart_at) = self.launcher.restart_at() {
            if self.stop.has_begun() {
                self.stopped();
            } else if now >= restart_at {
                self.restart_fork_server();
            }
        } else if self.stop.has_begun() {
            self.advance_stop();
            self.crew.stop_idle(false, now);
            self.start_workers();
        } else if !self.launcher.is_up() && now >= self.launcher.must_be_up_at(&self.round) {
            let what = self.launcher.describe_delay(&self.round);
            self.fail_before_init(&what);
        } else {
            self.crew.stop_idle(false, now);
            self.start_workers();
        }
    }

    /// Returns when something about the processes is due that no descriptor reports.
    pub(super) fn process_deadline(&self) -> Option<u64> {
        match self.stop.stage() {
            _ if self.launcher.restart_at().is_some() => self.launcher.restart_at(),
            Stopping::No if !self.launcher.is_up() => Some(self.launcher.must_be_up_at(&self.round)),
            Stopping::No | Stopping::WhenIdle if self.may_start() => Some(self.starts.next_at()),
            Stopping::Closing { since } => Some(since + CLOSE_GRACE_NS),
            _ => None,
        }
    }

    // ---- the fork server

    /// Returns the fork server, as far as its output is concerned.
    pub(super) fn server(&self) -> Server {
        Server { pid: self.launcher.pid(), is_up: self.launcher.is_up() }
    }

    /// Handles replies of the fork server, up to a bound; epoll reports the rest again.
    pub(super) fn fork_server_ready(&mut self) {
        for _ in 0..MAX_REPLIES {
            let known = match self.launcher.next_reply() {
                Ok(None) => return,
                Ok(Some(Reply::Hello)) => self.launcher.came_up(),
                Ok(Some(Reply::Spawned { worker, pid })) => match self.crew.position(worker) {
                    Some(at) => self.crew[at].spawned(pid, self.launcher.child(pid)),
                    None => false,
                },
                Ok(Some(Reply::SpawnFailed { worker, errno })) => self.spawn_failed(worker, Errno::from_raw(errno)),
                Ok(Some(Reply::Cleared)) if matches!(self.stop.stage(), Stopping::Closing { .. }) => {
                    return self.fork_server_cleared();
                }
                Ok(Some(Reply::Cleared)) => false,
                Ok(Some(Reply::Exited { worker, status })) => {
                    let at = self.crew.position(worker);
                    if let Some(at) = at {
                        self.worker_exited(at, Some(status));
                    }
                    at.is_some()
                }
                Err(_) => return self.fork_server_gone(),
            };
            if !known && self.launcher.count_invalid_reply() {
                return self.kill_flooding_fork_server();
            }
        }
    }

    /// Kills a fork server that floods this process with invalid messages.
    fn kill_flooding_fork_server(&mut self) {
        let message = format!(
            "the program's fork server broke the protocol: it sent {MAX_INVALID_REPLIES} invalid messages; it was killed with its workers"
        );
        self.fail(self.round.failure(FailureKind::ProgramRejected, message));
        self.launcher.kill();
        self.fork_server_gone();
    }

    /// The fork server is ready for the next pool.
    fn fork_server_cleared(&mut self) {
        self.launcher.mark_cleared(&self.round);
        self.stopped();
    }

    fn fork_server_gone(&mut self) {
        self.launcher.end();
        let any_ready = self.crew.iter().any(Worker::was_ready);
        // The workers die with their fork server, but not the processes that their tasks started.
        self.crew.iter().for_each(Worker::kill);
        while !self.crew.is_empty() {
            self.worker_exited(0, None);
        }
        if self.stop.has_begun() {
            self.stopped();
        } else if !self.launcher.is_up() {
            let what = self.launcher.describe_exit();
            self.fail_before_init(&what);
            self.stopped();
        } else {
            if !any_ready {
                self.start_failed(|| "the fork server was killed".into());
            }
            match self.stop.has_begun() {
                true => self.stopped(),
                false => self.launcher.schedule_restart(self.starts.next_at()),
            }
        }
    }

    fn restart_fork_server(&mut self) {
        let server = self.server();
        match self.launcher.restart(self.output.forwards(), self.round.now) {
            Ok(stderr) => {
                self.output.fork_server_exited(server, &mut self.round);
                self.launcher.watch(&self.round);
                self.output.set_fork_server(stderr, &self.round);
            }
            Err(error) => {
                let message = format!("cannot restart the fork server after it was killed: {error}");
                self.fail(self.round.failure(FailureKind::Unavailable, message));
                self.stopped();
            }
        }
    }

    /// Fails the pool, since the program has not reached `farpool::init()`. `what`: what it did instead.
    fn fail_before_init(&mut self, what: &str) {
        let stderr = self.output.fork_server_exited(self.server(), &mut self.round);
        self.fail(not_started::not_ready(&self.launcher, &self.round.host, what, &stderr));
    }

    // ---- starting workers

    fn start_workers(&mut self) {
        while self.may_start() && self.round.now >= self.starts.next_at() {
            self.quota.start();
            let number = self.launcher.next_number();
            match self.start_worker(number) {
                Ok(()) => {}
                // The fork server has died, which is handled instead.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return self.fork_server_ready(),
                Err(error) => {
                    self.spawn_failed(number, error);
                }
            }
        }
    }

    /// Returns whether it has fewer workers than it should have, and may start more.
    fn may_start(&self) -> bool {
        let wanted = match self.stop.stage() {
            Stopping::No => true,
            Stopping::WhenIdle => self.launcher.is_up() && !self.work.queue_is_empty(),
            _ => false,
        };
        // While unhealthy, one worker at a time is enough as a probe.
        let probing = self.starts.unhealthy_reason().is_some() && self.crew.iter().any(Worker::is_starting);
        wanted
            && !probing
            && self.quota.may_start(self.crew.serving())
            && !self.crew.too_many_exit(self.round.host.settings.slots)
    }

    fn start_worker(&mut self, number: u32) -> nix::Result<()> {
        let _standard = HoldStandard::new()?;
        let (worker, [memory, socket]) = Worker::prepare(number, &self.round)?;
        let (streams, ends) = self.output.prepare(number)?;
        let own_stdout = std::io::stdout();
        let stdout = ends.stdout.as_ref().map_or(own_stdout.as_fd(), AsFd::as_fd);
        self.launcher.spawn(number, [memory.as_fd(), socket.as_fd(), stdout, ends.stderr.as_fd()])?;
        self.round.watch(Token::Socket(number), worker.socket());
        self.output.worker_started(streams, &self.round);
        self.crew.add(worker);
        Ok(())
    }

    /// Handles a worker that could not be started. Returns whether there was such a worker.
    fn spawn_failed(&mut self, number: u32, error: Errno) -> bool {
        let at = self.crew.position(number);
        if let Some(at) = at {
            self.crew.remove(at);
            self.output.worker_not_started(number);
        }
        self.start_failed(|| format!("starting a worker: {error}"));
        at.is_some()
    }

    /// Handles a worker that died before it began an item. The pool fails only if further starts are hopeless.
    fn start_failed(&mut self, what: impl FnOnce() -> String) {
        if let Some(failure) = self.starts.failed(what, self.quota.processes(), &self.round) {
            self.fail(failure);
        }
    }

    // ---- workers that have exited

    /// Handles a worker's exit: keeps its finished items, reports why it died, and requeues what it had not begun.
    /// `status` is as waitpid(2) gives it; `None` if the fork server died.
    fn worker_exited(&mut self, at: usize, status: Option<i32>) {
        // What it wrote before it died counts.
        self.collect_remaining(at);
        let mut remains = self.crew.remove(at).end(status, self.round.threads);
        let mut streams = self.output.worker_exited(remains.number, remains.known_pid, &mut self.round);
        let death = remains.death;
        if let Some(failure) = remains.init_failure.take() {
            self.fail(Failure { pid: remains.pid, ..failure });
        } else if !remains.was_ready && status.is_some() && !self.stop.has_begun() {
            self.died_at_start(&remains, streams.as_mut());
        }
        let ended_by_itself = matches!(death.reason, None | Some(Reason::BrokenLink | Reason::ClosedConnection));
        // If it ended while idle, no item is at fault.
        let died_unexpectedly = ended_by_itself && !remains.was_idle && remains.was_ready;
        let died_on_something = !remains.victims.is_empty();
        self.work.requeue(std::mem::take(&mut remains.pieces), self.stop.stage() == Stopping::Now);
        for victim in &remains.victims {
            let failure = self.failure_of_victim(*victim, &remains, streams.as_mut());
            self.work.failed((victim.chunk, victim.item), failure, &mut self.round.report);
        }
        if died_unexpectedly && !died_on_something && !remains.finished_any && !self.stop.has_begun() {
            self.start_failed(|| death.describe(0));
        }
    }

    fn died_at_start(&mut self, remains: &Remains, streams: Option<&mut Streams>) {
        let description = remains.death.describe(self.round.settings.memory_limit);
        if self.round.settings.initializer.is_empty() {
            return self.start_failed(|| description);
        }
        let message = match remains.death.reason {
            Some(Reason::InitializerTimedOut { .. }) => description,
            _ => format!("{description}, in its initializer"),
        };
        let mut failure = self.round.failure(FailureKind::InitializerFailed, message);
        failure.pid = remains.pid;
        failure.stderr = streams.map(Streams::stderr_tail).unwrap_or_default();
        self.fail(failure);
    }

    fn failure_of_victim(&self, victim: Victim, remains: &Remains, streams: Option<&mut Streams>) -> Failure {
        let Death { reason, .. } = remains.death;
        let (kind, message) = match reason {
            Some(Reason::TimedOut { position, limit }) if position == victim.position => (
                FailureKind::TimedOut,
                format!(
                    "the item ran longer than its timeout of {}; its worker was killed and replaced",
                    format_nanoseconds(limit)
                ),
            ),
            _ => {
                let mut message = remains.death.describe(self.round.settings.memory_limit);
                if let Some(note) = &remains.note {
                    message = format!("{message}, after it {note}");
                }
                (FailureKind::WorkerDied, message)
            }
        };
        let mut failure = self.round.failure(kind, message);
        failure.pid = remains.pid;
        failure.stderr = streams.map(Streams::stderr_tail).unwrap_or_default();
        failure
    }

    // ---- terminating workers

    /// Terminates a worker with its process group and descendants: SIGTERM now, SIGKILL after a grace period.
    pub(super) fn terminate(&mut self, at: usize, reason: Reason) {
        let worker = &mut self.crew[at];
        if worker.terminate(reason, self.round.now) {
            self.launcher.signal(worker.number(), Signal::SIGTERM);
        }
    }

    /// Terminates workers that have been running an item, or their initializer, for too long.
    fn terminate_overdue(&mut self) {
        let timed = self.work.is_timed();
        for at in 0..self.crew.len() {
            if let Some((due, reason)) = self.crew[at].due(timed, &self.round)
                && self.round.now >= due
            {
                self.terminate(at, reason);
            }
        }
    }

    /// Takes the next step with workers that are being terminated.
    fn advance_terminations(&mut self) {
        // In reverse order, since some may be removed.
        for at in (0..self.crew.len()).rev() {
            let worker = &mut self.crew[at];
            match worker.advance_termination(self.round.now) {
                Some(NextStep::Signal(signal)) => self.launcher.signal(worker.number(), signal),
                Some(NextStep::KillForkServer) => self.launcher.kill(),
                Some(NextStep::Abandon) => self.worker_exited(at, Some(Signal::SIGKILL as i32)),
                None => {}
            }
        }
    }

    /// Returns the number of exiting workers that were not killed.
    pub(crate) fn exiting(&self) -> usize {
        self.crew.exiting_slowly()
    }

    /// Returns the number of workers, exiting ones included.
    pub(crate) fn workers(&self) -> usize {
        self.crew.len()
    }

    /// Kills the worker that has been exiting longest.
    pub(crate) fn kill_longest_exiting(&mut self, now: u64) {
        if let Some(number) = self.crew.mark_longest_exiting_killed(now) {
            self.launcher.signal(number, Signal::SIGKILL);
        }
    }

    // ---- stopping

    fn advance_stop(&mut self) {
        let now = self.round.now;
        match self.stop.stage() {
            Stopping::WhenIdle if self.work.queue_is_empty() => self.crew.stop_idle(true, now),
            Stopping::Now => {
                // Items may have been taken back from a worker meanwhile.
                self.work.clear_queue();
                for at in 0..self.crew.len() {
                    self.terminate(at, Reason::Stopped);
                }
            }
            Stopping::Closing { since } if now >= since + CLOSE_GRACE_NS => {
                self.launcher.kill();
                // Its end is reported by its connection. Until then nothing is due.
                self.stop.close(now);
            }
            _ => {}
        }
        let leaving = matches!(self.stop.stage(), Stopping::WhenIdle | Stopping::Now);
        if leaving && self.crew.is_empty() && self.work.queue_is_empty() && !self.work.has_rejected() {
            self.launcher.close();
            self.stop.close(now);
        }
    }

    /// Keeps its fork server for the next pool, if it is prepared for it; after the stop.
    pub(crate) fn keep_fork_server(self) {
        self.launcher.keep();
    }

    /// Records and reports that all processes have ended.
    fn stopped(&mut self) {
        self.stop.end();
        self.round.report.other(Body::PoolStopped(PoolStopped { pool: self.round.id }));
    }
}
