//! The history of a pool's starts: backs off, reports that the pool is unhealthy, or gives up when its workers keep
//! dying.

use std::time::Duration;

use farpool_common::backoff::{self, Backoff};
use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{Failure, FailureKind, HealthReport, PoolStarted};

use super::round::Round;
use crate::sharing::REPORT_AGAIN_AFTER_NS;

/// Deaths further apart than this are unrelated.
const RESET_AFTER_NS: u64 = 10_000_000_000;
/// After this many deaths in a row of workers that began no item, a pool may give up ([`Starts::failed`]). Where starts
/// are not retried, after one more for each of its workers.
const MAX_FAILED_STARTS: usize = 5;
/// After this many such deaths the pool is unhealthy: each further start backs off longer.
const UNHEALTHY_AFTER: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// The history of worker starts.
#[derive(Debug)]
pub(super) struct Starts {
    /// When the pool was started.
    since: u64,
    /// No worker is started before this time.
    next_at: u64,
    /// Consecutive deaths of workers that had not begun an item.
    failed_starts: u32,
    /// When the last of these died.
    failed_at: u64,
    /// See [`crate::Settings`].
    retries_starts: bool,
    backoff: Backoff,
    /// Whether any worker has ever become ready.
    was_ever_ready: bool,
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

    /// Returns the time before which no worker is started.
    pub(super) fn next_at(&self) -> u64 {
        self.next_at
    }

    /// Records that a worker died before it began an item. Starts back off. `processes`: how many workers the pool may
    /// have. Returns the failure of the pool if further starts are hopeless.
    pub(super) fn failed(&mut self, what: impl FnOnce() -> String, processes: usize, round: &Round) -> Option<Failure> {
        let deaths = self.record_death(round.now);
        let why =
            |what: String| format!("{deaths} workers in a row died before they started an item; the last: {what}");
        let gives_up = match self.retries_starts {
            // Another process may have killed all of them at once, which alone proves nothing.
            false => deaths as usize >= MAX_FAILED_STARTS + processes,
            true => {
                !self.was_ever_ready
                    && deaths as usize >= MAX_FAILED_STARTS
                    && round.now >= self.since.saturating_add(round.start_limit)
            }
        };
        if gives_up {
            return Some(round.failure(FailureKind::Unavailable, why(what())));
        }
        if self.retries_starts && deaths >= UNHEALTHY_AFTER {
            self.unhealthy = Some(why(what()));
        }
        None
    }

    /// Returns why workers die before they become ready, if they do.
    pub(super) fn unhealthy_reason(&self) -> Option<&str> {
        self.unhealthy.as_deref()
    }

    /// Returns whether a worker could run items when it is started: earlier ones became ready, and few have died since.
    pub(super) fn can_serve(&self) -> bool {
        self.was_ever_ready && self.unhealthy.is_none()
    }

    /// Returns whether the coordinator was last told that this pool is unhealthy while others are not.
    pub(super) fn reported_unhealthy(&self) -> bool {
        self.reported_unhealthy
    }

    /// Returns the change of the pool's health to report now, if any. `all`: the whole agent was reported unhealthy.
    /// `stops`: the pool is stopping.
    pub(super) fn report_health(&mut self, all: bool, stops: bool, round: &Round) -> Option<Body> {
        // A stopping pool gets no items, so its health does not matter.
        match &self.unhealthy {
            None if self.reported_unhealthy => {
                self.reported_unhealthy = false;
                self.recovered_at = Some(round.now);
                (!stops).then_some(Body::PoolStarted(PoolStarted { pool: round.id }))
            }
            Some(reason) if !self.reported_unhealthy && !all && !stops && round.now >= self.may_report_at() => {
                self.reported_unhealthy = true;
                Some(Body::HealthReport(HealthReport { reason: reason.clone(), pool: round.id }))
            }
            _ => None,
        }
    }

    /// Returns when to report the pool's health or to start a probe, if that is later than `now`.
    pub(super) fn health_due(&self, now: u64) -> Option<u64> {
        self.unhealthy.as_ref()?;
        let at = if self.reported_unhealthy { self.next_at } else { self.may_report_at() };
        Some(at).filter(|&at| at > now)
    }

    /// Returns whether to start a worker without items for it, as a probe.
    pub(super) fn should_probe(&self, now: u64) -> bool {
        self.reported_unhealthy && self.unhealthy.is_some() && now >= self.next_at
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
