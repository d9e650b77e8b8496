//! Looking after the processes: starting them, ending them, and telling what happened when one died.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{Failure, FailureKind, PoolStopped};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::chunks::Piece;
use super::death::{Death, Reason, seconds};
use super::worker::{Ending, Given, State, Worker};
use super::{Token, WorkerPool};
use crate::fork_server::message::Reply;
use crate::fork_server::{ForkServer, Program};
use crate::link::record::Kind;

/// Time between SIGTERM and SIGKILL.
const GRACE_NS: u64 = 100_000_000;
/// Time for the items of a cancelled job to finish by themselves, which spares a worker.
const CANCEL_GRACE_NS: u64 = 10_000_000;
/// Time for a worker that has closed its connection to be gone.
const CLOSED_GRACE_NS: u64 = 50_000_000;
/// Time for a worker that was told to leave: its program's exit handlers may have something to do.
const LEAVE_GRACE_NS: u64 = 5_000_000_000;
/// Time for a worker without an initializer to become ready, and for the program to reach `farpool::init()`.
pub(super) const START_NS: u64 = 30_000_000_000;
/// Time for the fork server to end once its connection was closed.
const CLOSE_GRACE_NS: u64 = 1_000_000_000;
/// Workers that may die one after the other without having become ready or begun an item.
const MOST_FRUITLESS: u32 = 5;

/// What is known of the processes as a whole.
#[derive(Debug)]
pub(super) struct Supervision {
    program: Program,
    fork_server: ForkServer,
    /// When it was started.
    since: u64,
    /// The program has reached `farpool::init()`.
    up: bool,
    next_number: u32,
    /// Deaths, one after the other, of workers that had not become ready or begun an item.
    fruitless: u32,
    /// No worker is started before this time.
    next_start_at: u64,
    stopping: Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    No,
    /// Workers leave as soon as they have nothing to do.
    WhenIdle,
    /// Workers are killed.
    Now,
    /// All workers are gone; the fork server goes, since this time.
    Closing { since: u64 },
    /// Everything is gone.
    Done,
}

impl Supervision {
    pub(super) fn new(program: Program, fork_server: ForkServer, now: u64) -> Supervision {
        Supervision { program, fork_server, since: now, up: false, next_number: 0, fruitless: 0, next_start_at: 0, stopping: Stopping::No }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    pub(super) fn start_succeeded(&mut self) {
        self.fruitless = 0;
    }

    /// When something is due that no descriptor will tell.
    pub(super) fn deadline(&self, wants_workers: bool) -> Option<u64> {
        match self.stopping {
            Stopping::No if !self.up => Some(self.since + START_NS),
            Stopping::No if wants_workers => Some(self.next_start_at),
            Stopping::Closing { since } => Some(since + CLOSE_GRACE_NS),
            _ => None,
        }
    }
}

impl WorkerPool {
    /// One round of looking after everything.
    pub(super) fn supervise(&mut self, now: u64) {
        self.retry_output(now);
        self.end_overdue(now);
        self.go_on_ending(now);
        if self.supervision.is_stopping() {
            self.go_on_stopping(now);
        } else if !self.supervision.up && now >= self.supervision.since + START_NS {
            let waited = seconds(START_NS);
            let message = format!("starting workers: the program did not reach farpool::init() within {waited}: make it the first line of main");
            self.fail(self.failure(FailureKind::Unavailable, message));
        } else {
            self.start_workers(now);
        }
    }

    /// The workers are to go: at once, or as soon as they have nothing to do.
    pub(crate) fn stop(&mut self, now: bool) {
        match self.supervision.stopping {
            Stopping::No | Stopping::WhenIdle if now => {
                self.supervision.stopping = Stopping::Now;
                self.queue.clear();
            }
            Stopping::No => self.supervision.stopping = Stopping::WhenIdle,
            _ => {}
        }
    }

    /// Whether nothing is left of this pool.
    pub(crate) fn is_over(&self) -> bool {
        self.supervision.stopping == Stopping::Done
    }

    pub(super) fn watch_fork_server(&mut self) {
        if let Some(socket) = self.supervision.fork_server.socket() {
            Token::ForkServer.watch(&self.epoll, self.id, socket);
        }
    }

    /// What the fork server has told.
    pub(super) fn fork_server_ready(&mut self, now: u64) {
        loop {
            match self.supervision.fork_server.next_reply() {
                Ok(None) => return,
                Ok(Some(Reply::Hello)) => self.supervision.up = true,
                Ok(Some(Reply::Spawned { worker, pid })) => {
                    if let Some(worker) = self.workers.iter_mut().find(|known| known.number == worker) {
                        worker.pid = pid;
                    }
                }
                Ok(Some(Reply::SpawnFailed { worker, errno })) => self.spawn_failed(worker, Errno::from_raw(errno), now),
                Ok(Some(Reply::Exited { worker, status })) => {
                    if let Some(at) = self.workers.iter().position(|known| known.number == worker) {
                        self.bury(at, Some(status), now);
                    }
                }
                Err(_) => return self.fork_server_gone(now),
            }
        }
    }

    fn fork_server_gone(&mut self, now: u64) {
        self.supervision.fork_server.end();
        while !self.workers.is_empty() {
            self.bury(0, None, now);
        }
        if self.supervision.is_stopping() {
            self.supervision.stopping = Stopping::Done;
            self.report.other(Body::PoolStopped(PoolStopped { pool: self.id }));
        } else if !self.supervision.up {
            let ended = self.supervision.fork_server.how_it_ended();
            let message = format!("starting workers: the program ended ({ended}) before it reached farpool::init(): make it the first line of main");
            self.fail(self.failure(FailureKind::Unavailable, message));
            self.supervision.stopping = Stopping::Done;
            self.report.other(Body::PoolStopped(PoolStopped { pool: self.id }));
        } else {
            self.restart_fork_server(now);
        }
    }

    fn restart_fork_server(&mut self, now: u64) {
        match ForkServer::start(&self.supervision.program) {
            Ok(fork_server) => {
                self.supervision.fork_server = fork_server;
                (self.supervision.since, self.supervision.up) = (now, false);
                self.watch_fork_server();
            }
            Err(error) => {
                let message = format!("starting the fork server again after it was killed: {error}");
                self.fail(self.failure(FailureKind::Unavailable, message));
                self.supervision.stopping = Stopping::Done;
                self.report.other(Body::PoolStopped(PoolStopped { pool: self.id }));
            }
        }
    }

    fn start_workers(&mut self, now: u64) {
        while self.serving() < self.processes && now >= self.supervision.next_start_at && !self.supervision.is_stopping() {
            let number = self.supervision.next_number;
            self.supervision.next_number += 1;
            if let Err(error) = self.start_worker(number, now) {
                self.spawn_failed(number, error, now);
            }
        }
    }

    fn start_worker(&mut self, number: u32, now: u64) -> nix::Result<()> {
        let (worker, ends) = Worker::prepare(number, &self.settings, now)?;
        self.supervision.fork_server.spawn(number, ends.memory.as_fd(), ends.socket.as_fd(), ends.stderr.as_fd())?;
        Token::Socket(number).watch(&self.epoll, self.id, worker.socket.as_fd());
        if let Some(pipe) = worker.stderr.pipe() {
            Token::Stderr(number).watch(&self.epoll, self.id, pipe);
        }
        self.workers.push(worker);
        Ok(())
    }

    fn spawn_failed(&mut self, number: u32, error: Errno, now: u64) {
        self.workers.retain(|worker| worker.number != number);
        self.start_was_fruitless(now, || format!("starting a worker: {error}"));
    }

    /// Starting again and again helps nobody: later and later, and not for ever.
    fn start_was_fruitless(&mut self, now: u64, what: impl FnOnce() -> String) {
        self.supervision.fruitless += 1;
        self.supervision.next_start_at = now + (1_000_000 << self.supervision.fruitless.min(10));
        if self.supervision.fruitless >= MOST_FRUITLESS {
            let message = format!("{MOST_FRUITLESS} workers in a row ended before they had begun an item; the last: {}", what());
            self.fail(self.failure(FailureKind::Unavailable, message));
        }
    }

    // ---- ending workers

    /// Orders the end of a worker: SIGTERM now, SIGKILL for its whole process group after a grace period.
    pub(super) fn order_end(&mut self, at: usize, reason: Reason, now: u64) {
        let worker = &mut self.workers[at];
        if worker.ending.is_some_and(|ending| ending.asked) {
            return;
        }
        worker.state = State::Dying;
        worker.ending = Some(Ending { reason, at: now + GRACE_NS, asked: true, insisted: false });
        // An error means that the fork server is gone, and the worker with it.
        let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGTERM);
    }

    /// Takes the next step with workers whose end was ordered and that are still there.
    fn go_on_ending(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            let Some(ending) = worker.ending.filter(|ending| now >= ending.at) else { continue };
            if ending.asked {
                worker.ending = Some(Ending { at: now + CLOSE_GRACE_NS, insisted: true, ..ending });
                let _ = self.supervision.fork_server.kill(worker.number, Signal::SIGKILL);
                if ending.insisted {
                    // Only a fork server that is stopped or stuck leaves a killed worker unreported.
                    self.supervision.fork_server.force();
                }
            } else {
                self.order_end(at, ending.reason, now);
            }
        }
    }

    /// A worker's socket is ready: a wake-up, or its end.
    pub(super) fn socket_ready(&mut self, number: u32, now: u64) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.number == number) else { return };
        if !worker.heard() {
            // Its exit is about to be told, unless it has only closed the socket and runs on.
            let _ = self.epoll.delete(&worker.socket);
            if worker.ending.is_none() {
                worker.state = State::Dying;
                worker.ending = Some(Ending { reason: Reason::ClosedConnection, at: now + CLOSED_GRACE_NS, asked: false, insisted: false });
            }
        }
    }

    /// Ends workers that have been on an item, or in their initializer, for too long.
    fn end_overdue(&mut self, now: u64) {
        for at in 0..self.workers.len() {
            if let Some((due, reason)) = self.due(at)
                && now >= due
            {
                self.order_end(at, reason, now);
            }
        }
    }

    /// When a worker is to be ended for taking too long, and why.
    pub(super) fn due(&self, at: usize) -> Option<(u64, Reason)> {
        let worker = &self.workers[at];
        if worker.ending.is_some() {
            return None;
        }
        if worker.state == State::Starting {
            let limit = if self.settings.initializer.is_empty() { START_NS } else { self.settings.initializer_timeout_ns };
            return (limit > 0).then_some((worker.born.saturating_add(limit), Reason::InitializerTimedOut { limit }));
        }
        let overdue = self.first_timeout(worker);
        let cancelled = worker.cancel_at.map(|at| (at, Reason::Cancelled));
        overdue.into_iter().chain(cancelled).min_by_key(|(due, _)| *due)
    }

    fn first_timeout(&self, worker: &Worker) -> Option<(u64, Reason)> {
        let limit_of = |given: &Given| self.jobs[self.chunks[given.chunk as usize].job as usize].timeout_ns;
        if worker.given.iter().all(|given| limit_of(given) == 0) {
            return None;
        }
        let running = worker.memory.status().running(self.threads).filter_map(|running| {
            let given = worker.given.iter().find(|given| given.item_at(running.position).is_some())?;
            let limit = limit_of(given);
            let due = running.since?.checked_add(limit)?;
            (limit > 0).then_some((due, Reason::TimedOut { position: running.position, limit }))
        });
        let first = running.min_by_key(|(due, _)| *due);
        first.or_else(|| {
            // Nothing has begun although something was given: the worker was stopped before it came to it.
            let given = worker.given.front()?;
            let limit = limit_of(given);
            let due = worker.progress.2.checked_add(limit)?;
            (limit > 0).then_some((due, Reason::TimedOut { position: given.next(), limit }))
        })
    }

    /// Takes a cancelled job's items away from the workers, and sees to the end of those that run.
    pub(super) fn cancel_given_of(&mut self, job: u32, now: u64) {
        for at in 0..self.workers.len() {
            let has = |chunks: &slab::Slab<super::chunks::Chunk>, given: &Given| chunks[given.chunk as usize].job == job;
            let Some(first) = self.workers[at].given.iter().find(|given| has(&self.chunks, given)).map(Given::next) else { continue };
            if self.workers[at].sending.is_none() && !self.workers[at].revoking {
                self.take_back(at, first);
                self.drop_queued_of(job);
            }
            if self.workers[at].given.iter().any(|given| has(&self.chunks, given)) {
                self.workers[at].cancel_at = Some(now + CANCEL_GRACE_NS);
            }
        }
    }

    // ---- what is left of a worker

    /// A worker is gone: keeps what it has finished, tells what it died of, and moves what it had not begun.
    fn bury(&mut self, at: usize, status: Option<i32>, now: u64) {
        // Whatever it wrote before it died counts. A garbled end of it does not.
        let _ = self.collect(at, now);
        let mut worker = self.workers.remove(at);
        worker.stderr.pump();
        let death = Death { status, reason: worker.ending.filter(|ending| ending.asked).map(|ending| ending.reason) };
        let before_ready = worker.state == State::Starting || matches!(death.reason, Some(Reason::InitializerTimedOut { .. }));
        if let Some(failure) = worker.init_failure.take() {
            self.fail(failure);
        } else if before_ready && !self.supervision.is_stopping() {
            self.died_at_start(&mut worker, death, now);
        }
        let died_on_something = self.requeue(&mut worker, death);
        let expected = death.reason.is_some() || matches!(worker.state, State::Leaving) || before_ready;
        if !expected && !died_on_something && worker.finished == 0 && !self.supervision.is_stopping() {
            self.start_was_fruitless(now, || death.tell(0));
        }
    }

    fn died_at_start(&mut self, worker: &mut Worker, death: Death, now: u64) {
        let told = death.tell(self.settings.memory_limit);
        if self.settings.initializer.is_empty() {
            return self.start_was_fruitless(now, || told);
        }
        let message = match death.reason {
            Some(Reason::InitializerTimedOut { .. }) => told,
            _ => format!("{told}, in its initializer"),
        };
        let mut failure = self.failure(FailureKind::InitializerFailed, message);
        failure.pid = worker.pid;
        failure.stderr = worker.stderr.end();
        self.fail(failure);
    }

    /// Sorts what the worker had: items that ran are told as its victims, the others go elsewhere. Returns whether
    /// any ran.
    fn requeue(&mut self, worker: &mut Worker, death: Death) -> bool {
        let mut running: Vec<u32> = worker.memory.status().running(self.threads).map(|running| running.position).collect();
        if let Some(Reason::TimedOut { position, .. }) = death.reason {
            running.push(position);
        }
        let mut pieces: VecDeque<Piece> = worker.rest.take().into_iter().collect();
        let mut victims = Vec::new();
        while let Some(given) = worker.given.pop_back() {
            let mut end = given.end();
            for position in (given.next()..given.end()).rev().filter(|position| running.contains(position)) {
                push_piece(&mut pieces, &given, position + 1, end);
                victims.push((given.chunk, given.first + u64::from(position - given.position), position));
                end = position;
            }
            push_piece(&mut pieces, &given, given.next(), end);
        }
        for piece in pieces.into_iter().rev() {
            let job = &self.jobs[self.chunks[piece.chunk as usize].job as usize];
            if job.cancelled || self.supervision.stopping == Stopping::Now {
                self.settle(piece.chunk, piece.count);
            } else {
                self.queue.push_front(piece);
            }
        }
        let any = !victims.is_empty();
        for (chunk, item, position) in victims {
            let failure = self.failure_of_victim(worker, death, position);
            self.tell_failed(chunk, item, failure);
        }
        any
    }

    fn failure_of_victim(&mut self, worker: &mut Worker, death: Death, position: u32) -> Failure {
        let mut failure = match death.reason {
            Some(Reason::TimedOut { position: timed_out, limit }) if timed_out == position => {
                self.failure(FailureKind::TimedOut, format!("the item ran longer than its timeout of {}; its worker was killed and replaced", seconds(limit)))
            }
            _ => {
                let mut message = death.tell(self.settings.memory_limit);
                if let Some(note) = worker.memory.status().note() {
                    message = format!("{message}, after it {note}");
                }
                self.failure(FailureKind::WorkerDied, message)
            }
        };
        failure.pid = worker.pid;
        failure.stderr = worker.stderr.end();
        failure
    }

    // ---- the end of the pool

    fn go_on_stopping(&mut self, now: u64) {
        match self.supervision.stopping {
            Stopping::WhenIdle => self.let_idle_workers_leave(now),
            Stopping::Now => {
                for at in 0..self.workers.len() {
                    self.order_end(at, Reason::Stopped, now);
                }
            }
            Stopping::Closing { since } if now >= since + CLOSE_GRACE_NS => self.supervision.fork_server.force(),
            _ => {}
        }
        let leaving = matches!(self.supervision.stopping, Stopping::WhenIdle | Stopping::Now);
        if leaving && self.workers.is_empty() && self.queue.is_empty() {
            self.supervision.fork_server.close();
            self.supervision.stopping = Stopping::Closing { since: now };
        }
    }

    fn let_idle_workers_leave(&mut self, now: u64) {
        if !self.queue.is_empty() {
            return;
        }
        for worker in &mut self.workers {
            let idle = worker.given.is_empty() && worker.rest.is_none() && !worker.revoking && matches!(worker.state, State::Ready | State::Retiring);
            if idle && worker.order(Kind::Stop, 0, &[]).unwrap_or(false) {
                worker.show();
                worker.state = State::Leaving;
                worker.ending = Some(Ending { reason: Reason::Stopped, at: now + LEAVE_GRACE_NS, asked: false, insisted: false });
            }
        }
    }
}

/// Whether items of a worker are running that were to be cancelled.
pub(super) fn still_running(worker: &Worker) -> bool {
    !worker.given.is_empty()
}

fn push_piece(pieces: &mut VecDeque<Piece>, given: &Given, from: u32, to: u32) {
    if from < to {
        pieces.push_back(Piece { chunk: given.chunk, first: given.first + u64::from(from - given.position), count: u64::from(to - from) });
    }
}
