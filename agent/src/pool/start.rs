//! Starting workers, and giving up when that leads nowhere.

use std::os::fd::AsFd;
use std::time::Duration;

use farpool_common::backoff::{self, Backoff};
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{Ailing, FailureKind, PoolStarted};
use nix::errno::Errno;

use super::stop::Stopping;
use super::stream::Stream;
use super::worker::{State, Worker};
use super::{Token, WorkerPool};
use crate::sharing::AILS_AFTER_NS;
use crate::standard::HoldStandard;

/// Deaths further apart than this have nothing to do with each other.
const FORGOTTEN_NS: u64 = 10_000_000_000;
/// Workers that may die in a row without having begun an item, beyond one for each process of the pool.
const MOST_FRUITLESS: usize = 5;
/// So many of them, and something is wrong with this host: the next one is waited for longer, and longer each time.
const AILING: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl WorkerPool {
    pub(super) fn start_workers(&mut self, now: u64) {
        while self.may_start() && now >= self.supervision.starts.next_at {
            self.allowance.starts -= 1;
            let number = self.supervision.next_number;
            self.supervision.next_number += 1;
            match self.start_worker(number, now) {
                Ok(()) => {}
                // There is no fork server any more, which is what counts, and what is told.
                Err(Errno::EPIPE | Errno::ECONNRESET) => return self.fork_server_ready(now),
                Err(error) => {
                    self.spawn_failed(number, error, now);
                }
            }
        }
    }

    /// Whether it has fewer workers than it should have, and room for more.
    pub(super) fn may_start(&self) -> bool {
        let wanted = match self.supervision.stopping {
            Stopping::No => true,
            Stopping::WhenIdle => self.supervision.up && !self.queue.is_empty(),
            _ => false,
        };
        // One is enough to see whether it still dies.
        let tries = self.ailing().is_some() && self.workers.iter().any(|worker| worker.state == State::Starting);
        wanted
            && !tries
            && self.allowance.starts > 0
            && self.serving() < self.allowance.workers
            && !self.waits_for_leaving()
    }

    fn start_worker(&mut self, number: u32, now: u64) -> nix::Result<()> {
        let _standard = HoldStandard::new()?;
        let (worker, ends) = Worker::prepare(number, &self.settings, self.teller.is_some(), now)?;
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

    /// Returns whether there was such a worker.
    pub(super) fn spawn_failed(&mut self, number: u32, error: Errno, now: u64) -> bool {
        let before = self.workers.len();
        self.workers.retain(|worker| worker.number != number);
        self.start_was_fruitless(now, || format!("starting a worker: {error}"));
        self.workers.len() < before
    }

    /// Starting again and again helps nobody: later and later. Where it is of use to wait for better times, for ever.
    pub(super) fn start_was_fruitless(&mut self, now: u64, what: impl FnOnce() -> String) {
        let keeps_trying = self.host.settings.keeps_trying;
        let deaths = self.supervision.starts.another_death(now);
        let why =
            |what: String| format!("{deaths} workers in a row died before they started an item; the last: {what}");
        let starts = &self.supervision.starts;
        let gives_up = match keeps_trying {
            // All of them may be killed at once, from outside; that alone says nothing.
            false => deaths as usize >= MOST_FRUITLESS + self.processes,
            true => {
                !starts.has_served
                    && deaths as usize >= MOST_FRUITLESS
                    && now >= starts.since.saturating_add(self.supervision.start_limit)
            }
        };
        if gives_up {
            self.fail(self.failure(FailureKind::Unavailable, why(what())));
        } else if keeps_trying && deaths >= AILING {
            self.supervision.starts.ailing = Some(why(what()));
        }
    }

    /// Why it has workers that die before they can serve, if it has.
    pub(crate) fn ailing(&self) -> Option<&str> {
        self.supervision.starts.ailing.as_deref()
    }

    /// Whether one of its workers can run items, or could as soon as it is started: earlier ones have served, and not too many
    /// have died since.
    pub(crate) fn can_serve(&self) -> bool {
        let serves = |worker: &Worker| matches!(worker.state, State::Ready | State::Retiring);
        let starts = &self.supervision.starts;
        starts.has_served && starts.ailing.is_none() || self.workers.iter().any(serves)
    }

    /// Whether the coordinator was last told that this pool cannot serve while others can.
    pub(crate) fn told_ailing(&self) -> bool {
        self.supervision.starts.told_ailing
    }

    /// Returns the change of its health that the coordinator is to be told now. `all`: it was told that no pool can serve here.
    pub(crate) fn tell_health(&mut self, all: bool, now: u64) -> Option<Body> {
        // A pool that is stopping gets no items, so its health does not matter.
        let stops = self.supervision.is_stopping();
        let starts = &mut self.supervision.starts;
        match &starts.ailing {
            None if starts.told_ailing => {
                starts.told_ailing = false;
                starts.recovered_at = Some(now);
                (!stops).then_some(Body::PoolStarted(PoolStarted { pool: self.id }))
            }
            Some(reason) if !starts.told_ailing && !all && !stops && now >= starts.ails_from() => {
                starts.told_ailing = true;
                Some(Body::Ailing(Ailing { reason: reason.clone(), pool: self.id }))
            }
            _ => None,
        }
    }

    /// When its health is to be reported, or a worker to be tried, if that is later than `now`.
    pub(crate) fn health_due(&self, now: u64) -> Option<u64> {
        let starts = &self.supervision.starts;
        starts.ailing.as_ref()?;
        let at = if starts.told_ailing { starts.next_at } else { starts.ails_from() };
        Some(at).filter(|&at| at > now)
    }

    /// Whether to start a worker, although there are no items for it, to find out whether it can serve.
    pub(super) fn is_to_try(&self, now: u64) -> bool {
        let starts = &self.supervision.starts;
        starts.told_ailing && starts.ailing.is_some() && now >= starts.next_at
    }
}

/// How the starting of workers goes.
#[derive(Debug)]
pub(super) struct Starts {
    /// When the pool was started.
    since: u64,
    /// No worker is started before this time.
    pub(super) next_at: u64,
    /// Deaths in a row of workers that had not begun an item, ...
    fruitless: u32,
    /// ... and when the last of these was.
    fruitless_at: u64,
    /// See [`crate::Settings`].
    keeps_trying: bool,
    backoff: Backoff,
    /// Some worker has become ready at some time.
    pub(super) has_served: bool,
    /// Why it waits longer than usual.
    ailing: Option<String>,
    /// The coordinator was told that its workers die.
    told_ailing: bool,
    /// When the coordinator was last told that they serve again.
    recovered_at: Option<u64>,
}

impl Starts {
    pub(super) fn new(now: u64, keeps_trying: bool) -> Starts {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, backoff::random_seed());
        Starts {
            since: now,
            next_at: 0,
            fruitless: 0,
            fruitless_at: 0,
            keeps_trying,
            backoff,
            has_served: false,
            ailing: None,
            told_ailing: false,
            recovered_at: None,
        }
    }

    /// The earliest time to report that its workers die.
    fn ails_from(&self) -> u64 {
        self.recovered_at.map_or(0, |at| at + AILS_AFTER_NS)
    }

    /// A worker has become ready.
    pub(super) fn worker_serves(&mut self) {
        self.has_served = true;
        self.ailing = None;
    }

    /// A worker that was started then has finished an item.
    pub(super) fn item_finished(&mut self, born: u64) {
        // Those that are there longer say nothing about those that are started now.
        if self.fruitless > 0 && (!self.keeps_trying || born >= self.fruitless_at) {
            self.fruitless = 0;
            self.backoff.reset();
        }
    }

    /// Another one in the row; returns how long that is.
    fn another_death(&mut self, now: u64) -> u32 {
        if now >= self.fruitless_at.max(self.next_at) + FORGOTTEN_NS {
            self.fruitless = 0;
            self.backoff.reset();
        }
        self.fruitless += 1;
        self.fruitless_at = now;
        if self.fruitless < AILING || !self.keeps_trying {
            self.next_at = now + (1_000_000 << self.fruitless.min(10));
        } else if self.ailing.is_none() || now >= self.next_at {
            // Those that were started together die together: that is waited for once.
            self.next_at = now + u64::try_from(self.backoff.wait().as_nanos()).unwrap_or(u64::MAX);
        }
        self.fruitless
    }
}
