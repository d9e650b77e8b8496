use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use super::contents::Sleeper;
use super::{Delivery, End, EndHook, Inbox, Interest, Room};
use crate::counted::Counted;
use crate::error::{Error, ErrorKind};
use crate::gate::{Gate, Held};

/// The consumer's side.
impl Inbox {
    /// Creates the inbox of the job with this number. Errors name `verb`, the call that started it, and `label`.
    pub fn new(job: u64, verb: &'static str, label: &str, interest: Interest) -> Self {
        Self {
            job,
            verb,
            label: label.to_owned(),
            interest,
            finished: AtomicU64::new(0),
            pulled: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            unseen: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            gate: None,
            state: Mutex::default(),
        }
    }

    /// Sets the initial limit of bytes of items, and the gate that the session passes before it reads on.
    pub fn in_session(self, limit: u64, gate: Option<Arc<Gate>>) -> Self {
        Self { limit: AtomicU64::new(limit), gate, ..self }
    }

    /// Moves all outcomes into `deliveries`, which is empty. Returns whether the job has ended, so that no more will arrive.
    #[inline]
    pub fn take(&self, deliveries: &mut VecDeque<Delivery>) -> bool {
        debug_assert!(deliveries.is_empty(), "earlier deliveries would be lost");
        let mut state = self.state();
        self.unseen.store(false, Ordering::Relaxed);
        *deliveries = state.take_deliveries(std::mem::take(deliveries));
        state.end.is_some()
    }

    /// Returns whether the job has ended.
    #[inline]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Returns how the job ended, if it has.
    pub(crate) fn how_ended(&self) -> Option<End> {
        self.state().end.clone()
    }

    /// Returns the error that the whole job ended with, if it did not finish.
    pub fn end_error(&self) -> Option<Error> {
        let state = self.state();
        let end = state.end.as_ref()?;
        let error = match (&state.broken, end) {
            (Some(error), _) => error.clone(),
            (None, End::Finished) => return None,
            (None, End::Cancelled) => Error::new(
                ErrorKind::Cancelled,
                "the job was cancelled, or its pool was terminated, before it finished",
            ),
            (None, End::PoolFailed(error)) => error.clone(),
            (None, End::Closed) => Error::new(ErrorKind::Closed, "the pool was closed before the call"),
        };
        drop(state);
        Some(self.add_context(error))
    }

    /// Returns the name of the call that started the job, such as `map`.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// Returns the label of the job; empty if it has none.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Adds the name of the call and the label of the job to an error. The error is the session's, or the front's
    /// version of it.
    pub fn add_context<E: From<Error>>(&self, error: impl Into<Error>) -> E {
        error.into().of_job(self.verb, &self.label).into()
    }

    /// Fails the whole job with this error, whatever its end will be. Only the first error counts.
    pub fn break_with(&self, error: impl Into<Error>) {
        let error = error.into();
        self.state().broken.get_or_insert(error);
    }

    /// Fails an item that never reached the session.
    pub fn refuse(&self, item: u64, error: impl Into<Error>) {
        let error = error.into();
        self.deliver(1, Delivery::Failed { first: item, count: 1, error, held: Held::default() }).wake();
    }

    /// Returns how many items have an outcome.
    #[inline]
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Returns how many items were pulled from the input so far. An outcome for any other is an error of the peer.
    #[inline]
    pub fn pulled(&self) -> u64 {
        self.pulled.load(Ordering::Relaxed)
    }

    /// Notes how many items were pulled from the input so far.
    #[inline]
    pub fn set_pulled(&self, items: u64) {
        self.pulled.store(items, Ordering::Relaxed);
    }

    /// Wakes the task when something arrives. Check again after this call for earlier arrivals.
    pub fn set_waker(&self, waker: &Waker) {
        // Cloning or dropping a waker runs an executor's code, which may do anything: not under the lock.
        let sleeper = Sleeper { waker: waker.clone(), _waits: self.begin_wait() };
        let before = self.state().waker.replace(sleeper);
        drop(before);
        self.knock();
    }

    /// Wakes the task when something arrives, unless something already has. Returns whether something has.
    pub(crate) fn wake_on_arrival(&self, waker: &Waker) -> bool {
        if self.has_arrivals() {
            return true;
        }
        self.set_waker(waker);
        // A later delivery wakes the waker, and an earlier one is visible here: then nothing waits.
        let has_arrived = self.has_arrivals();
        if has_arrived {
            let sleeper = self.state().waker.take();
            drop(sleeper);
        }
        has_arrived
    }

    /// Completes when an item has its outcome, or the job has ended.
    pub async fn first_outcome(&self) {
        let has_arrived = || self.finished() > 0 || self.ended();
        poll_fn(|context| {
            if !has_arrived() {
                self.set_waker(context.waker());
            }
            // A later arrival wakes the waker, and an earlier one is visible here.
            if has_arrived() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Runs the hook at the end, or now if the job has ended already.
    pub fn at_end(&self, hook: EndHook) {
        let mut state = self.state();
        if state.end.is_none() {
            state.hooks.push(hook);
            drop(state);
            return self.knock();
        }
        drop(state);
        hook();
    }

    /// Makes the session read on, because a consumer asks for the job's outcomes or is about to wait for them.
    pub fn knock(&self) {
        if let Some(gate) = &self.gate {
            gate.knock();
        }
    }

    /// Notes that the consumer that handled outcomes as they arrived is gone.
    pub fn lose_consumer(&self) {
        if self.interest == Interest::Outcomes {
            self.discard();
        }
    }

    /// Discards outcomes from now on: no consumer will take them.
    pub fn discard(&self) {
        let mut state = self.state();
        state.discarding = true;
        let unwanted = state.take_deliveries(VecDeque::new());
        let sleeper = state.waker.take();
        drop(state);
        drop((unwanted, sleeper));
    }

    /// Returns how many bytes of items may be sent in total.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns whether another message of items may be sent.
    #[inline]
    pub fn has_room(&self, room: Room) -> bool {
        room.sent_bytes < self.limit() || self.finished() >= room.finished
    }

    /// Sleeps until there is room or the job has ended, independently of what the consumer waits for.
    pub fn park_until_room(&self, room: Room) {
        while !self.has_room(room) && !self.ended() {
            self.unpark_for_room(room);
            // A later arrival unparks this thread, and an earlier one is visible here.
            if !self.has_room(room) && !self.ended() {
                thread::park();
            }
        }
    }

    /// Unparks this thread once, when there is room or the job has ended. Check again after this call for earlier changes.
    pub fn unpark_for_room(&self, room: Room) {
        self.state().feeder = Some((room, thread::current()));
    }
}

impl Counted for Inbox {
    fn count(&self) -> u64 {
        self.finished()
    }

    fn is_over(&self) -> bool {
        self.ended()
    }
}
