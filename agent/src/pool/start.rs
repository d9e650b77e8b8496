//! Starts workers, and backs off or gives up when they keep dying.

use std::os::fd::AsFd;
use std::time::Duration;

use farpool_common::backoff::{self, Backoff};
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{FailureKind, HealthReport, PoolStarted};
use nix::errno::Errno;

use super::stop::Stopping;
use super::stream::Stream;
use super::worker::{State, Worker};
use super::{Token, WorkerPool};
use crate::sharing::REPORT_AGAIN_AFTER_NS;
use crate::standard::HoldStandard;

/// Deaths further apart than this are unrelated.
const RESET_AFTER_NS: u64 = 10_000_000_000;
/// Workers beyond one for each process that may die in a row without having begun an item.
const MAX_FAILED_STARTS: usize = 5;
/// After this many such deaths the host is unhealthy: each further start backs off longer.
const UNHEALTHY_AFTER: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

impl WorkerPool {
    pub(super) fn start_workers(&mut self, now: u64) {
        while self.may_start() && now >= self.supervision.starts.next_at {
            self.allowance.starts -= 1;
            let number = self.supervision.next_number;
            self.supervision.next_number += 1;
            match self.start_worker(number, now) {
                Ok(()) => {}
                // The fork server has died, which is handled instead.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return self.fork_server_ready(now),
                Err(error) => {
                    self.spawn_failed(number, error, now);
                }
            }
        }
    }

    /// Returns whether it has fewer workers than it should have, and may start more.
    pub(super) fn may_start(&self) -> bool {
        let wanted = match self.supervision.stopping {
            Stopping::No => true,
            Stopping::WhenIdle => self.supervision.up && !self.queue.is_empty(),
            _ => false,
        };
        // While unhealthy, one worker at a time is enough as a probe.
        let probing =
            self.unhealthy_reason().is_some() && self.workers.iter().any(|worker| worker.state == State::Starting);
        wanted
            && !probing
            && self.allowance.starts > 0
            && self.serving() < self.allowance.workers
            && !self.must_wait_for_exiting()
    }

    fn start_worker(&mut self, number: u32, now: u64) -> nix::Result<()> {
        let _standard = HoldStandard::new()?;
        let (worker, ends) = Worker::prepare(number, &self.settings, self.forwarder.is_some(), now)?;
        let own_stdout = std::io::stdout();
        let stdout = ends.stdout.as_ref().map_or(own_stdout.as_fd(), AsFd::as_fd);
        let descriptors = [ends.memory.as_fd(), ends.socket.as_fd(), stdout, ends.stderr.as_fd()];
        self.supervision.fork_server.spawn(number, descriptors)?;
        Token::Socket(number).watch(&self.epoll, self.serial, worker.socket.as_fd());
        let streams = [(Token::Stdout(number), worker.stdout.as_ref()), (Token::Stderr(number), Some(&worker.stderr))];
        for (token, stream) in streams {
            if let Some(pipe) = stream.and_then(Stream::pipe) {
                token.watch(&self.epoll, self.serial, pipe);
            }
        }
        self.workers.push(worker);
        Ok(())
    }

    /// Handles a worker that could not be started. Returns whether there was such a worker.
    pub(super) fn spawn_failed(&mut self, number: u32, error: Errno, now: u64) -> bool {
        let before = self.workers.len();
        self.workers.retain(|worker| worker.number != number);
        self.start_failed(now, || format!("starting a worker: {error}"));
        self.workers.len() < before
    }

    /// Handles a worker that died before it began an item. Starts back off; the pool gives up only where nothing can
    /// improve.
    pub(super) fn start_failed(&mut self, now: u64, what: impl FnOnce() -> String) {
        let retries_starts = self.host.settings.retries_starts;
        let deaths = self.supervision.starts.record_death(now);
        let why =
            |what: String| format!("{deaths} workers in a row died before they started an item; the last: {what}");
        let starts = &self.supervision.starts;
        let gives_up = match retries_starts {
            // Another process may have killed all of them at once, which alone proves nothing.
            false => deaths as usize >= MAX_FAILED_STARTS + self.processes,
            true => {
                !starts.was_ever_ready
                    && deaths as usize >= MAX_FAILED_STARTS
                    && now >= starts.since.saturating_add(self.supervision.start_limit)
            }
        };
        if gives_up {
            self.fail(self.failure(FailureKind::Unavailable, why(what())));
        } else if retries_starts && deaths >= UNHEALTHY_AFTER {
            self.supervision.starts.unhealthy = Some(why(what()));
        }
    }

    /// Returns why its workers die before they become ready, if they do.
    pub(crate) fn unhealthy_reason(&self) -> Option<&str> {
        self.supervision.starts.unhealthy.as_deref()
    }

    /// Returns whether a worker can run items, or could when it is started: earlier ones became ready, and few have
    /// died since.
    pub(crate) fn can_serve(&self) -> bool {
        let serves = |worker: &Worker| matches!(worker.state, State::Ready | State::Retiring);
        let starts = &self.supervision.starts;
        starts.was_ever_ready && starts.unhealthy.is_none() || self.workers.iter().any(serves)
    }

    /// Returns whether the coordinator was last told that this pool is unhealthy while others are not.
    pub(crate) fn reported_unhealthy(&self) -> bool {
        self.supervision.starts.reported_unhealthy
    }

    /// Returns the change of its health to report now, if any. `all`: the whole agent was reported unhealthy.
    pub(crate) fn report_health(&mut self, all: bool, now: u64) -> Option<Body> {
        // A stopping pool gets no items, so its health does not matter.
        let stops = self.supervision.is_stopping();
        let starts = &mut self.supervision.starts;
        match &starts.unhealthy {
            None if starts.reported_unhealthy => {
                starts.reported_unhealthy = false;
                starts.recovered_at = Some(now);
                (!stops).then_some(Body::PoolStarted(PoolStarted { pool: self.id }))
            }
            Some(reason) if !starts.reported_unhealthy && !all && !stops && now >= starts.may_report_at() => {
                starts.reported_unhealthy = true;
                Some(Body::HealthReport(HealthReport { reason: reason.clone(), pool: self.id }))
            }
            _ => None,
        }
    }

    /// Returns when to report its health or to start a probe, if that is later than `now`.
    pub(crate) fn health_due(&self, now: u64) -> Option<u64> {
        let starts = &self.supervision.starts;
        starts.unhealthy.as_ref()?;
        let at = if starts.reported_unhealthy { starts.next_at } else { starts.may_report_at() };
        Some(at).filter(|&at| at > now)
    }

    /// Returns whether to start a worker without items for it, as a probe.
    pub(super) fn should_probe(&self, now: u64) -> bool {
        let starts = &self.supervision.starts;
        starts.reported_unhealthy && starts.unhealthy.is_some() && now >= starts.next_at
    }
}

/// The history of worker starts.
#[derive(Debug)]
pub(super) struct Starts {
    /// When the pool was started.
    since: u64,
    /// No worker is started before this time.
    pub(super) next_at: u64,
    /// Consecutive deaths of workers that had not begun an item.
    failed_starts: u32,
    /// When the last of these died.
    failed_at: u64,
    /// See [`crate::Settings`].
    retries_starts: bool,
    backoff: Backoff,
    /// Whether any worker has ever become ready.
    pub(super) was_ever_ready: bool,
    /// Why the pool is unhealthy, if it is.
    unhealthy: Option<String>,
    /// Whether the coordinator was told that the pool is unhealthy.
    reported_unhealthy: bool,
    /// When the coordinator was last told that the pool has recovered.
    recovered_at: Option<u64>,
}

impl Starts {
    pub(super) fn new(now: u64, retries_starts: bool) -> Starts {
        let backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF, backoff::random_seed());
        Starts {
            since: now,
            next_at: 0,
            failed_starts: 0,
            failed_at: 0,
            retries_starts,
            backoff,
            was_ever_ready: false,
            unhealthy: None,
            reported_unhealthy: false,
            recovered_at: None,
        }
    }

    /// Returns the earliest time to report that the pool is unhealthy.
    fn may_report_at(&self) -> u64 {
        self.recovered_at.map_or(0, |at| at + REPORT_AGAIN_AFTER_NS)
    }

    /// Records that a worker has become ready.
    pub(super) fn worker_ready(&mut self) {
        self.was_ever_ready = true;
        self.unhealthy = None;
    }

    /// Records that a worker that was started at this time has finished an item.
    pub(super) fn item_finished(&mut self, requested_at: u64) {
        // Older workers say nothing about those that are started now.
        if self.failed_starts > 0 && (!self.retries_starts || requested_at >= self.failed_at) {
            self.failed_starts = 0;
            self.backoff.reset();
        }
    }

    /// Records another death; returns the number of consecutive ones.
    fn record_death(&mut self, now: u64) -> u32 {
        if now >= self.failed_at.max(self.next_at) + RESET_AFTER_NS {
            self.failed_starts = 0;
            self.backoff.reset();
        }
        self.failed_starts += 1;
        self.failed_at = now;
        if self.failed_starts < UNHEALTHY_AFTER || !self.retries_starts {
            self.next_at = now + (1_000_000 << self.failed_starts.min(10));
        } else if self.unhealthy.is_none() || now >= self.next_at {
            // Workers that were started together die together: back off once.
            self.next_at = now + u64::try_from(self.backoff.wait().as_nanos()).unwrap_or(u64::MAX);
        }
        self.failed_starts
    }
}
