//! Jobs that were submitted and that the engine does not know of yet.
//!
//! A thread that submits one small job after another would drive the whole engine for each. Of such a stream only the first job is taken in
//! at once; those that follow shortly after wait here, and are taken in together by whoever drives next, at the latest [`LONGEST_NS`] after
//! they came: the thread that submits does its part while another one drives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farpool_agent::timer::Timer;
use farpool_proto::v1::client_message::Body;
use nix::errno::Errno;
use nix::sys::epoll::Epoll;

use super::engine::Engine;
use crate::inbox::{End, Inbox};

/// With as many the thread that submits has to drive: nobody else does it fast enough.
const MOST_JOBS: usize = 512;
const MOST_BYTES: usize = 256 << 10;
/// How long a job waits here at most. A driver that has to be woken takes a good part of this anyway.
const LONGEST_NS: u64 = 200_000;

pub(super) struct Intake {
    state: Mutex<State>,
    /// Whether there are jobs; only written under the lock.
    waiting: AtomicBool,
}

struct State {
    jobs: Jobs,
    bytes: usize,
    /// When the last job came.
    latest: u64,
    /// Wakes whoever drives.
    timer: Timer,
    /// The timer is set, and will be heard: [`Intake::rung`].
    will_ring: bool,
    /// Nobody hears the timer any more.
    closed: bool,
}

/// Jobs, and their first messages one behind the other.
#[derive(Default)]
pub(super) struct Jobs {
    /// With the number of its messages.
    inboxes: Vec<(Arc<Inbox>, usize)>,
    messages: Vec<Body>,
}

impl Intake {
    /// `epoll` reports as `data` that jobs have waited long enough.
    pub(super) fn new(epoll: &Epoll, data: u64) -> Result<Self, Errno> {
        let timer = Timer::new(epoll, data)?;
        let state = State { jobs: Jobs::default(), bytes: 0, latest: 0, timer, will_ring: false, closed: false };
        Ok(Self { state: Mutex::new(state), waiting: AtomicBool::new(false) })
    }

    /// Takes a job, whose messages it drains; whether the caller has to drive the engine now.
    #[must_use]
    pub(super) fn push(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>, now: u64) -> bool {
        let mut state = self.state();
        state.bytes += messages.iter().map(bytes).sum::<usize>();
        state.jobs.inboxes.push((Arc::clone(inbox), messages.len()));
        state.jobs.messages.append(messages);
        let follows = now < state.latest.saturating_add(LONGEST_NS);
        state.latest = now;
        self.waiting.store(true, Ordering::Release);
        if state.closed || !follows || state.jobs.inboxes.len() >= MOST_JOBS || state.bytes >= MOST_BYTES {
            return true;
        }
        if !state.will_ring {
            // Set only once until it rings, even if drivers take jobs in before that.
            state.will_ring = state.timer.ring_by(now + LONGEST_NS).is_ok();
        }
        !state.will_ring
    }

    /// Gives the engine all jobs that are here. `spare` is empty before and after.
    pub(super) fn empty_into(&self, engine: &mut Engine, spare: &mut Jobs) {
        if self.waiting.load(Ordering::Acquire) {
            self.take(engine, spare, |_| {});
        }
    }

    /// The same once the timer has rung.
    pub(super) fn rung(&self, engine: &mut Engine, spare: &mut Jobs) {
        self.take(engine, spare, |state| {
            state.timer.rung();
            state.will_ring = false;
        });
    }

    /// The same once the engine is closed. Whoever brings a job later has to drive it.
    pub(super) fn close(&self, engine: &mut Engine, spare: &mut Jobs) {
        self.take(engine, spare, |state| state.closed = true);
    }

    fn take(&self, engine: &mut Engine, spare: &mut Jobs, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        self.waiting.store(false, Ordering::Release);
        state.bytes = 0;
        std::mem::swap(&mut state.jobs, spare);
        drop(state);
        let mut messages = spare.messages.drain(..);
        for (inbox, count) in spare.inboxes.drain(..) {
            if let Err(error) = engine.admit(&inbox, messages.by_ref().take(count)) {
                inbox.break_with(inbox.tell(error));
                engine.inboxes.wake_later(Some(inbox.end(End::Cancelled)));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(body: &Body) -> usize {
    match body {
        Body::Items(items) => items.data.len() + items.ends.len(),
        _ => 0,
    }
}
