//! Where the outcomes of one job wait for whoever wants them.
//!
//! Outcomes are delivered by the thread that drives the session, under the session's lock: delivering is a push and
//! never runs a user's code. Decoding, callbacks and everything else that may take time happen on other threads.

mod consumer;
mod state;
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
use state::State;
pub use state::{Room, Wakes};

/// The outcomes of one job that nobody has taken yet, and how the job ended.
pub struct Inbox {
    job: u64,
    verb: &'static str,
    label: String,
    interest: Interest,
    finished: AtomicU64,
    pulled: AtomicU64,
    /// How many bytes of items may have been sent.
    limit: AtomicU64,
    /// Something has come since the consumer looked last: outcomes, or room.
    unseen: AtomicBool,
    ended: AtomicBool,
    /// What the session passes before it reads on, if it reads from a stream.
    gate: Option<Arc<Gate>>,
    state: Mutex<State>,
}

/// What a job's consumer is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every outcome, and room for further input: it works through them as they come.
    Outcomes,
    /// Only the end: it looks at all outcomes at once.
    End,
}

/// What a job's consumer finds in its inbox.
#[derive(Debug)]
pub enum News {
    /// The results of consecutive items: encoded one behind the other, and where each ends, as in `ItemsDone`. `held` is
    /// dropped when they are decoded.
    Done {
        /// The first of the items.
        first: u64,
        /// Their results.
        data: Bytes,
        /// Where each ends in `data`, a u32 in little endian.
        ends: Bytes,
        /// How many attempts each item took; 0: one.
        attempts: u32,
        /// What they count for until they are taken.
        held: Held,
    },
    /// Consecutive items failed alike.
    Failed {
        /// The first of the items.
        first: u64,
        /// How many there are.
        count: u64,
        /// Why.
        error: Error,
    },
}

impl News {
    /// The first item that it is about.
    fn first(&self) -> u64 {
        match self {
            News::Done { first, .. } | News::Failed { first, .. } => *first,
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
    /// The pool cannot run anything any more.
    PoolFailed(Error),
    /// The pool was closed before the job could begin.
    Closed,
}

/// Runs once, when a job has ended; must be short, since it runs where outcomes are delivered.
pub type EndHook = Box<dyn FnOnce() + Send>;

/// The side of the session.
impl Inbox {
    /// The number of the job, which the client chose.
    pub fn job(&self) -> u64 {
        self.job
    }

    /// Takes the results of consecutive items, in the layout of `ItemsDone`. `attempts`: how many each item took; 0: one.
    #[inline]
    pub fn deliver_done(&self, first: u64, data: Bytes, ends: Bytes, attempts: u32) -> Wakes {
        let items = (ends.len() / 4) as u64;
        let held = match (&self.gate, self.interest) {
            (Some(gate), Interest::Outcomes) => gate.hold(data.len() + ends.len()),
            // What is looked at in the end only is not taken before.
            _ => Held::default(),
        };
        self.deliver(items, News::Done { first, data, ends, attempts, held })
    }

    /// Consecutive items have failed alike.
    pub fn deliver_failed(&self, first: u64, count: u64, failure: Failure) -> Wakes {
        self.deliver(count, News::Failed { first, count, error: Error::from_failure(failure) })
    }

    /// The client may have sent that many bytes of the job's items in all. It never becomes less.
    pub fn grant(&self, limit: u64) -> Wakes {
        let mut state = self.state();
        // Only written under the lock; read without it.
        if limit <= self.limit() {
            return Wakes::default();
        }
        self.limit.store(limit, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    /// The limit is this from now on, whatever it was: another coordinator has the job.
    pub fn set_limit(&self, limit: u64) -> Wakes {
        let mut state = self.state();
        self.limit.store(limit, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    /// The job has ended: nothing will be delivered after this. Only the first end counts.
    pub fn end(&self, end: End) -> Wakes {
        let mut state = self.state();
        if state.end.is_some() {
            return Wakes::default();
        }
        state.end = Some(end);
        let hooks = std::mem::take(&mut state.hooks);
        drop(state);
        hooks.into_iter().for_each(|hook| hook());
        // Last, so that whoever sees the end knows that the hooks have run.
        let mut state = self.state();
        self.ended.store(true, Ordering::Release);
        state.all_wakes()
    }

    /// Whether a consumer that waits should look.
    #[inline]
    pub fn has_news(&self) -> bool {
        match self.interest {
            Interest::Outcomes => self.unseen.load(Ordering::Acquire) || self.ended(),
            Interest::End => self.ended(),
        }
    }

    /// Whether anybody is asleep, on a thread or as a task, until something comes for this job.
    pub fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.waker.is_some() || !state.parked.is_empty() || !state.hooks.is_empty()
    }

    /// Sleeps until there is news or the deadline has passed, for a thread that leaves the driving to another one.
    /// It may return early.
    pub fn park(&self, deadline: Option<Instant>) {
        let me = thread::current();
        self.state().parked.push(me.clone());
        let _waits = self.begin_wait();
        self.knock();
        // A delivery since then has unparked this thread, and one before it is seen here.
        if !self.has_news() {
            park_until(deadline);
        }
        self.state().parked.retain(|thread| thread.id() != me.id());
    }
}

/// What both sides share.
impl Inbox {
    #[inline]
    fn deliver(&self, items: u64, news: News) -> Wakes {
        let mut state = self.state();
        match self.interest {
            _ if state.discarding => {}
            Interest::Outcomes => state.keep(news),
            Interest::End => state.keep_what_counts(news),
        }
        // Only written under the lock; read without it.
        let finished = self.finished.load(Ordering::Relaxed).saturating_add(items);
        self.finished.store(finished, Ordering::Relaxed);
        self.wakes(&mut state)
    }

    #[inline]
    fn wakes(&self, state: &mut State) -> Wakes {
        self.unseen.store(true, Ordering::Release);
        let feeder = state.feeder.take_if(|(room, _)| self.has_room(*room)).map(|(_, thread)| thread);
        match self.interest {
            Interest::Outcomes => Wakes { feeder, ..state.consumer_wakes() },
            Interest::End => Wakes { feeder, ..Wakes::default() },
        }
    }

    /// Somebody waits for what the session delivers here, until the returned value is dropped.
    fn begin_wait(&self) -> Option<Waiting> {
        self.gate.as_ref().map(|gate| gate.begin_wait())
    }

    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn park_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
        None => thread::park(),
    }
}
