//! Jobs that were submitted and that the engine does not know of yet.
//!
//! A thread that submits one small job after another would drive the whole engine for each. Of such a stream only the first job is taken in
//! at once; those that follow shortly after wait here, and are taken in together: by whoever drives next, at the latest [`LONGEST_NS`]
//! after the first of them, or by the thread that submits, once there are [`MOST_JOBS`] of them or [`MOST_BYTES`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farpool_proto::v1::client_message::Body;

use super::engine::Engine;
use crate::inbox::{End, Inbox};

const MOST_JOBS: usize = 64;
const MOST_BYTES: usize = 256 << 10;
/// How long a job waits here at most. A driver that has to be woken takes a good part of this anyway.
const LONGEST_NS: u64 = 200_000;

#[derive(Default)]
pub(super) struct Intake {
    state: Mutex<State>,
    /// Whether there are jobs; only written under the lock.
    waiting: AtomicBool,
}

#[derive(Default)]
struct State {
    jobs: Vec<Submission>,
    bytes: usize,
    /// When the last job came.
    latest: u64,
}

/// A job, and its first messages.
struct Submission {
    inbox: Arc<Inbox>,
    messages: Vec<Body>,
}

/// What the thread that submits has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing: others wait here too, and will be taken in.
    Leave,
    /// See to it that the engine is driven by this time.
    DriveBy(u64),
    /// Drive it.
    Drive,
}

impl Intake {
    /// Takes a job, whose messages it drains.
    pub(super) fn push(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>, now: u64) -> Then {
        let mut state = self.state();
        state.bytes += messages.iter().map(bytes).sum::<usize>();
        state.jobs.push(Submission { inbox: Arc::clone(inbox), messages: std::mem::take(messages) });
        let follows = now < state.latest.saturating_add(LONGEST_NS);
        state.latest = now;
        self.waiting.store(true, Ordering::Release);
        match state.jobs.len() {
            _ if !follows => Then::Drive,
            jobs if jobs >= MOST_JOBS || state.bytes >= MOST_BYTES => Then::Drive,
            1 => Then::DriveBy(now + LONGEST_NS),
            _ => Then::Leave,
        }
    }

    /// Gives the engine all jobs that are here.
    pub(super) fn empty_into(&self, engine: &mut Engine) {
        if !self.waiting.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        self.waiting.store(false, Ordering::Release);
        state.bytes = 0;
        let room = Vec::with_capacity(state.jobs.len());
        let jobs = std::mem::replace(&mut state.jobs, room);
        drop(state);
        for Submission { inbox, mut messages } in jobs {
            if let Err(error) = engine.admit(&inbox, &mut messages) {
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
