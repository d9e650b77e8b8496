//! The inbox, where the outcomes of one job wait for its consumer.
//!
//! Outcomes are delivered by the thread that drives the session, under the session's lock: delivering is a push and
//! never runs a user's code. Decoding, callbacks and everything else that may take time happen on other threads.

mod consumer;
mod contents;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use farpool_proto::v1::Failure;

use crate::error::Error;
use crate::gate::{Gate, Held};
use crate::waits::Waiting;
use contents::Contents;
pub use contents::{Room, Wakes};

/// Bytes that a failure counts for, besides its message.
const FAILURE_BYTES: usize = 256;

/// The outcomes of one job that were not consumed yet, and how the job ended.
pub struct Inbox {
    job: u64,
    verb: &'static str,
    label: String,
    interest: Interest,
    finished: AtomicU64,
    pulled: AtomicU64,
    /// How many bytes of items may have been sent.
    limit: AtomicU64,
    /// Outcomes or room have arrived since the consumer last looked.
    unseen: AtomicBool,
    ended: AtomicBool,
    /// The gate that the session passes before it reads on, if it reads from a stream.
    gate: Option<Arc<Gate>>,
    state: Mutex<Contents>,
}

/// What a job's consumer is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every outcome, and room for further input: it handles outcomes as they arrive.
    Outcomes,
    /// Only the end: it handles all outcomes at once.
    End,
    /// Nothing: a shared value has no outcomes.
    Nothing,
}

/// A delivery to a job's inbox: outcomes of consecutive items.
#[derive(Debug)]
pub enum Delivery {
    /// The results of consecutive items, encoded one after another, and where each ends, as in `ItemsDone`. `held` is dropped
    /// when they are decoded.
    Done {
        /// The first of the items.
        first: u64,
        /// Their results.
        data: Bytes,
        /// Where each ends in `data`, as little-endian u32.
        ends: Bytes,
        /// How many attempts each item took; 0 means one.
        attempts: u32,
        /// Their bytes, which count until they are taken.
        held: Held,
    },
    /// Consecutive items failed with the same error.
    Failed {
        /// The first of the items.
        first: u64,
        /// How many there are.
        count: u64,
        /// Why they failed.
        error: Error,
        /// Their bytes, which count until they are taken.
        held: Held,
    },
}

impl Delivery {
    /// Returns the first item that it is about.
    fn first(&self) -> u64 {
        match self {
            Delivery::Done { first, .. } | Delivery::Failed { first, .. } => *first,
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug)]
pub enum End {
    /// Every item has had its outcome.
    Finished,
    /// It was cancelled, or its pool was terminated.
    Cancelled,
    /// The pool can no longer run anything.
    PoolFailed(Error),
    /// The pool was closed before the job could start.
    Closed,
}

/// Runs once, when a job has ended. It must be short: it runs on the thread that delivers outcomes.
pub type EndHook = Box<dyn FnOnce() + Send>;

/// The session's side.
impl Inbox {
    /// Returns the number of the job, which the client chose.
    pub fn job(&self) -> u64 {
        self.job
    }

    /// Delivers the results of consecutive items, in the layout of `ItemsDone`. `attempts`: how many each item took; 0
    /// means one.
    #[inline]
    pub fn deliver_done(&self, first: u64, data: Bytes, ends: Bytes, attempts: u32) -> Wakes {
        let items = (ends.len() / 4) as u64;
        let held = self.hold(data.len() + ends.len());
        self.deliver(items, Delivery::Done { first, data, ends, attempts, held })
    }

    /// Delivers that consecutive items failed with the same error.
    pub fn deliver_failed(&self, first: u64, count: u64, failure: Failure) -> Wakes {
        let error = Error::from_failure(failure);
        let held = self.hold(FAILURE_BYTES + error.message().len());
        self.deliver(count, Delivery::Failed { first, count, error, held })
    }

    /// Notes how many items of a job that is being detached are durable: they count as finished.
    pub(crate) fn note_durable(&self, items: u64) -> Wakes {
        let mut state = self.state();
        self.finished.store(items, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    /// Raises the limit: the client may send that many bytes of the job's items in total. It never falls.
    pub fn grant(&self, limit: u64) -> Wakes {
        let mut state = self.state();
        // Only written under the lock; read without it.
        if limit <= self.limit() {
            return Wakes::default();
        }
        self.limit.store(limit, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    /// Sets the limit, even to less: another coordinator has the job.
    pub fn set_limit(&self, limit: u64) -> Wakes {
        let mut state = self.state();
        self.limit.store(limit, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    /// Ends the job: nothing is delivered after this. Only the first end counts.
    pub fn end(&self, end: End) -> Wakes {
        let mut state = self.state();
        if state.end.is_some() {
            return Wakes::default();
        }
        state.end = Some(end);
        let hooks = std::mem::take(&mut state.hooks);
        drop(state);
        hooks.into_iter().for_each(|hook| hook());
        // Last, so that the hooks have run when anyone sees the end.
        let mut state = self.state();
        self.ended.store(true, Ordering::Release);
        state.all_wakes()
    }

    /// Returns whether its consumer wants to be told of anything.
    pub(crate) fn awaits_anything(&self) -> bool {
        self.interest != Interest::Nothing
    }

    /// Returns whether outcomes, room or the end have arrived since the consumer last looked.
    #[inline]
    pub fn has_arrivals(&self) -> bool {
        match self.interest {
            Interest::Outcomes => self.unseen.load(Ordering::Acquire) || self.ended(),
            Interest::End | Interest::Nothing => self.ended(),
        }
    }

    /// Returns whether a thread or a task sleeps until something arrives for this job.
    pub fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.waker.is_some() || !state.parked.is_empty() || !state.hooks.is_empty()
    }

    /// Sleeps until something has arrived or the deadline has passed, while another thread drives. It may return early.
    pub fn park(&self, deadline: Option<Instant>) {
        let me = thread::current();
        self.state().parked.push(me.clone());
        let _waits = self.begin_wait();
        self.knock();
        // A later delivery unparks this thread, and an earlier one is visible here.
        if !self.has_arrivals() {
            park_until(deadline);
        }
        self.state().parked.retain(|thread| thread.id() != me.id());
    }
}

/// What both sides share.
impl Inbox {
    /// Counts bytes until they are consumed.
    #[inline]
    fn hold(&self, bytes: usize) -> Held {
        match (&self.gate, self.interest) {
            (Some(gate), Interest::Outcomes) => gate.hold(bytes),
            // A consumer that waits for the end takes nothing before.
            _ => Held::default(),
        }
    }

    #[inline]
    fn deliver(&self, items: u64, delivery: Delivery) -> Wakes {
        let mut state = self.state();
        match self.interest {
            _ if state.discarding => {}
            Interest::Outcomes => state.keep(delivery),
            Interest::End | Interest::Nothing => state.keep_lowest_failure(delivery),
        }
        // Only written under the lock; read without it.
        let finished = self.finished.load(Ordering::Relaxed).saturating_add(items);
        self.finished.store(finished, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    #[inline]
    fn wakes(&self, state: &mut Contents) -> Wakes {
        self.unseen.store(true, Ordering::Release);
        let feeder = state.feeder.take_if(|(room, _)| self.has_room(*room)).map(|(_, thread)| thread);
        match self.interest {
            Interest::Outcomes => Wakes { feeder, ..state.consumer_wakes() },
            Interest::End | Interest::Nothing => Wakes { feeder, ..Wakes::default() },
        }
    }

    /// Registers a wait for deliveries to this inbox, until the returned value is dropped.
    fn begin_wait(&self) -> Option<Waiting> {
        self.gate.as_ref().map(|gate| gate.begin_wait())
    }

    #[inline]
    fn state(&self) -> MutexGuard<'_, Contents> {
        // The state is consistent between statements: a panic elsewhere does not corrupt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn park_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
        None => thread::park(),
    }
}
