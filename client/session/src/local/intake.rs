//! Jobs that were submitted, but that the engine does not know yet.
//!
//! A thread that submits one small job after another would drive the whole engine for each. So only the first job of
//! such a stream is handed to the engine at once. Those that follow shortly after wait here, at most [`LONGEST_NS`]
//! until a thread drives, and are handed over in batches: one thread submits while another one drives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farpool_agent::timer::Timer;
use farpool_link::clock;
use farpool_proto::v1::client_message::Body;
use nix::errno::Errno;
use nix::sys::epoll::Epoll;

use super::engine::Engine;
use crate::error::Error;
use crate::inbox::{End, Inbox};

/// At this many jobs the submitting thread drives, too: no other thread is fast enough.
const MOST_JOBS: u64 = 64 << 10;
const MOST_BYTES: usize = 32 << 20;
/// At most this many are handed over at once, which bounds how long the engine is locked.
const PORTION: usize = 256;
/// The longest time that a job waits here before a thread drives. Waking a driver takes a good part of this anyway.
const LONGEST_NS: u64 = 200_000;

pub(super) struct Intake {
    state: Mutex<IntakeState>,
    /// How many jobs were submitted, and how many the engine has taken; only written under the lock.
    submitted: AtomicU64,
    taken: AtomicU64,
}

struct IntakeState {
    portions: VecDeque<Jobs>,
    bytes: usize,
    /// When the last job was submitted.
    latest: u64,
    /// Wakes the driver.
    timer: Timer,
    /// The timer is set, and [`Intake::handle_timer`] will be called.
    timer_is_set: bool,
    /// The timer is no longer polled.
    closed: bool,
}

/// Jobs, and their first messages, one after another.
#[derive(Default)]
pub(super) struct Jobs {
    /// Each inbox with the number of its messages.
    inboxes: Vec<(Arc<Inbox>, usize)>,
    messages: Vec<Body>,
    bytes: usize,
}

impl Intake {
    /// When jobs have waited long enough, `epoll` reports an event with this `data`.
    pub(super) fn new(epoll: &Epoll, data: u64) -> Result<Self, Errno> {
        let timer = Timer::new(epoll, data)?;
        let state =
            IntakeState { portions: VecDeque::new(), bytes: 0, latest: 0, timer, timer_is_set: false, closed: false };
        Ok(Self { state: Mutex::new(state), submitted: AtomicU64::new(0), taken: AtomicU64::new(0) })
    }

    /// Takes a job and drains its messages. Returns whether the caller must drive the engine now.
    #[must_use]
    pub(super) fn push(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>, now: u64) -> bool {
        let bytes = messages.iter().map(bytes).sum::<usize>();
        let mut state = self.state();
        state.bytes += bytes;
        state.last_portion().add(inbox, messages, bytes);
        let submitted = self.submitted.load(Ordering::Relaxed) + 1;
        self.submitted.store(submitted, Ordering::Release);
        let waiting = submitted - self.taken.load(Ordering::Relaxed);
        // While other jobs wait, a thread drives or is about to.
        let is_first = waiting == 1 && now >= state.latest.saturating_add(LONGEST_NS);
        state.latest = now;
        if state.closed || is_first || waiting >= MOST_JOBS || state.bytes >= MOST_BYTES {
            return true;
        }
        if !state.timer_is_set {
            // Set only once until it rings, even if drivers take jobs in before that.
            state.timer_is_set = state.timer.expire_by(now + LONGEST_NS).is_ok();
        }
        !state.timer_is_set
    }

    /// Returns how many jobs were submitted so far.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    /// Returns whether the engine has taken that many jobs.
    pub(super) fn has_handed_over(&self, jobs: u64) -> bool {
        self.taken.load(Ordering::Acquire) >= jobs
    }

    /// Hands a portion of the waiting jobs to the engine. `spare` is empty before and after.
    pub(super) fn hand_over(&self, engine: &mut Engine, spare: &mut Jobs) {
        if !self.has_handed_over(self.submitted()) {
            self.take(engine, spare, |_| {});
        }
    }

    /// Hands a portion of the waiting jobs to the engine when the timer has fired. See [`hand_over`](Self::hand_over).
    pub(super) fn handle_timer(&self, engine: &mut Engine, spare: &mut Jobs) {
        self.take(engine, spare, |state| {
            state.timer.clear_expired();
            // The rest after this batch follows at once.
            let is_last = state.portions.len() < 2;
            state.timer_is_set = !is_last && state.timer.expire_by(clock::now()).is_ok();
        });
    }

    /// Hands over all jobs once the engine is closed. Later submitters must drive the engine themselves.
    pub(super) fn close(&self, engine: &mut Engine, spare: &mut Jobs) {
        self.state().closed = true;
        while !self.has_handed_over(self.submitted()) {
            self.take(engine, spare, |_| {});
        }
    }

    fn take(&self, engine: &mut Engine, spare: &mut Jobs, change: impl FnOnce(&mut IntakeState)) {
        let mut state = self.state();
        change(&mut state);
        let empty = std::mem::replace(spare, state.portions.pop_front().unwrap_or_default());
        state.bytes -= spare.bytes;
        if state.portions.is_empty() {
            state.portions.push_back(empty);
        }
        let taken = self.taken.load(Ordering::Relaxed) + spare.inboxes.len() as u64;
        self.taken.store(taken, Ordering::Release);
        drop(state);
        spare.bytes = 0;
        let now = clock::now();
        let mut messages = spare.messages.drain(..);
        for (inbox, count) in spare.inboxes.drain(..) {
            if let Err(error) = engine.admit(&inbox, messages.by_ref().take(count), now) {
                inbox.break_with(inbox.add_context::<Error>(error));
                engine.inboxes.wake_later(Some(inbox.end(End::Cancelled)));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, IntakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IntakeState {
    /// Returns a portion that has room for a job.
    fn last_portion(&mut self) -> &mut Jobs {
        if self.portions.back().is_none_or(|jobs| jobs.inboxes.len() >= PORTION) {
            self.portions.push_back(Jobs::default());
        }
        self.portions.back_mut().expect("there is no portion")
    }
}

impl Jobs {
    fn add(&mut self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>, bytes: usize) {
        self.bytes += bytes;
        self.inboxes.push((Arc::clone(inbox), messages.len()));
        self.messages.append(messages);
    }
}

fn bytes(body: &Body) -> usize {
    match body {
        Body::Items(items) => items.data.len() + items.ends.len(),
        _ => 0,
    }
}
