//! State shared by the session's thread and the program's threads.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use farpool_net::outgoing;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{AwaitingItems, Welcome};
use tokio::sync::Notify;

use super::Address;
use super::kept::{FirstMessage, KeptSession};
use super::state::{Link, SessionState};
use crate::error::Error;
use crate::gate::Gate;
use crate::inbox::{Inbox, Wakes};
use crate::waits::Waits;

/// A session that reads a detached job pauses above this many bytes of outcomes that were not consumed yet.
const MOST_READ_AHEAD: u64 = 4 << 20;

pub(super) struct Shared {
    pub(super) address: Address,
    /// Requested number of workers; 0 means all slots.
    requested: u32,
    /// How many workers can run at once, as last reported by the coordinator.
    slots: AtomicU32,
    /// Bytes that a job may send before it is granted more, as last reported by the coordinator.
    window: AtomicU64,
    /// The most bytes of an item, whatever the pool allows, as last reported by the coordinator; 0: any.
    payload_limit: AtomicU64,
    pub(super) gate: Arc<Gate>,
    /// Wakes the session's thread: the session is no longer wanted, or a message was queued while nothing can run.
    pub(super) wake_up: Notify,
    abandoned: AtomicBool,
    state: Mutex<SessionState>,
    over: Condvar,
}

/// The program's side.
impl Shared {
    pub(super) fn new(address: Address, requested: u32, first_message: FirstMessage) -> Arc<Self> {
        // No message is sent before there is a connection, which has its own queue.
        let (outgoing, _) = outgoing(0, Arc::default());
        let (borrows, gate) = match &first_message {
            FirstMessage::Pool(open) => (open.ticket.is_some(), Gate::default()),
            FirstMessage::Attach(attached) => (attached.borrows(), Gate::default().with_bound(MOST_READ_AHEAD)),
        };
        let state = SessionState::new(KeptSession::new(first_message), outgoing);
        Arc::new_cyclic(|shared: &Weak<Self>| Self {
            address,
            requested,
            slots: AtomicU32::new(0),
            window: AtomicU64::new(0),
            payload_limit: AtomicU64::new(0),
            gate: Arc::new(if borrows { gate.with_waits(report_waits(shared.clone())) } else { gate }),
            wake_up: Notify::new(),
            abandoned: AtomicBool::new(false),
            state: Mutex::new(state),
            over: Condvar::new(),
        })
    }

    pub(super) fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        let mut state = self.state();
        if let Err(error) = state.inboxes.admit(inbox) {
            messages.clear();
            return Err(error);
        }
        // Another coordinator may have taken over since the call began; no thread waits for room yet.
        drop(inbox.set_limit(self.window()));
        // Under the lock, so that no job is opened after the pool's end.
        state.send(messages);
        let look = state.waiting.is_some() || state.link != Link::Up;
        self.release(state);
        if look {
            self.wake_up.notify_one();
        }
        Ok(())
    }

    /// Submits the only job of a session that was just created: no other one is admitted. See [`submit`](Self::submit).
    pub(super) fn submit_alone(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) {
        // A new session refuses no job.
        let _ = self.submit(inbox, messages);
        let mut state = self.state();
        state.inboxes.stop_admitting();
        state.closed = true;
    }

    pub(super) fn send(&self, messages: &mut Vec<Body>) {
        let close = messages.iter().find_map(|body| match body {
            Body::ClosePool(close) => Some(close.now),
            _ => None,
        });
        let mut state = self.state();
        state.send(messages);
        if let Some(now) = close {
            state.inboxes.stop_admitting();
            state.closed = true;
            state.terminated |= now;
        }
        let away = state.link != Link::Up;
        self.release(state);
        if close.is_some() {
            self.gate.knock();
            if away {
                self.wake_up.notify_one();
            }
        }
    }

    /// Blocks until the session has ended; `false` if the deadline passed first.
    pub(super) fn wait_until_over(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state();
        while !state.over {
            let Some(deadline) = deadline else {
                state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.over.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Returns how many workers run at once.
    pub(super) fn processes(&self) -> u32 {
        if self.requested > 0 { self.requested } else { self.slots.load(Ordering::Relaxed) }
    }

    /// Returns the bytes of items that a job may send before it is granted more.
    pub(super) fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    /// Returns the most bytes of an item, whatever the pool allows.
    pub(super) fn payload_limit(&self) -> u64 {
        match self.payload_limit.load(Ordering::Relaxed) {
            0 => u64::MAX,
            limit => limit,
        }
    }

    /// Returns why the session cannot continue, if it failed.
    pub(super) fn failure(&self) -> Option<Error> {
        self.state().inboxes.failure()
    }

    /// Returns why nothing of the pool can run at the moment.
    pub(super) fn waiting(&self) -> Option<String> {
        let state = self.state();
        state.outage.clone().or_else(|| state.waiting.clone())
    }

    /// Notes that the session is no longer wanted: its thread must end, whatever the coordinator does.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.wake_up.notify_one();
    }

    /// Returns whether there is a reason to reconnect to a coordinator.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_abandoned() && self.state().is_wanted()
    }

    /// Returns whether the session is idle: connected, with no open job, nothing queued to send, and a pool that can
    /// run.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let is_on = state.link == Link::Up && !(state.closed || state.over || self.is_abandoned());
        is_on && state.waiting.is_none() && state.inboxes.iter().len() == 0 && state.outgoing.waiting() == 0
    }

    /// Releases the state, and wakes the threads and tasks that something has arrived for.
    fn release(&self, mut state: MutexGuard<'_, SessionState>) {
        let wakes = state.inboxes.take_wakes();
        drop(state);
        wakes.into_iter().for_each(Wakes::wake);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, SessionState> {
        // The state is consistent between statements: a panic elsewhere does not corrupt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports to the coordinator when this client begins and stops waiting. Meanwhile others can use the slot of the task
/// that started this client.
fn report_waits(shared: Weak<Shared>) -> Arc<Waits> {
    Waits::new(move |waits| {
        if let Some(shared) = shared.upgrade() {
            shared.send(&mut vec![Body::AwaitingItems(AwaitingItems { waits })]);
        }
    })
}

/// The session thread's side.
impl Shared {
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Calls a function with the state, then wakes the threads and tasks that something has arrived for.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut SessionState) -> T) -> T {
        let mut state = self.state();
        let outcome = change(&mut state);
        self.release(state);
        outcome
    }

    /// Notes that the pool can run this many workers.
    pub(super) fn note_slots(&self, state: &mut SessionState, slots: u32) {
        self.slots.store(slots, Ordering::Relaxed);
        state.waiting = None;
    }

    /// Notes how much a job may send before it is granted more, and how large its items may be.
    pub(super) fn note_limits(&self, welcome: &Welcome) {
        self.window.store(welcome.window, Ordering::Relaxed);
        self.payload_limit.store(welcome.payload_limit, Ordering::Relaxed);
    }

    /// Returns whether anything waits for messages of the coordinator.
    pub(super) fn is_waited_for(&self) -> bool {
        let state = self.state();
        state.terminated || state.inboxes.iter().any(|inbox| inbox.is_waited_for())
    }

    /// Returns how many jobs have not ended.
    pub(super) fn open_jobs(&self) -> usize {
        self.state().inboxes.iter().len()
    }

    /// Notes that the session's thread has ended: nothing more will arrive.
    pub(super) fn end(&self, error: Option<Error>) {
        self.change(|state| {
            if let Some(error) = error {
                state.inboxes.fail(error);
            }
            state.inboxes.close();
            state.waiting = None;
            state.outage = None;
            state.kept.end_all();
            state.over = true;
        });
        self.over.notify_all();
    }
}
