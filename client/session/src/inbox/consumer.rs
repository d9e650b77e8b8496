use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use super::state::Sleeper;
use super::{End, EndHook, Inbox, Interest, News, Room};
use crate::counted::Counted;
use crate::error::{Error, ErrorKind};
use crate::gate::Gate;

/// The side of the consumer.
impl Inbox {
    /// That of the job with this number; errors name the verb and the label.
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

    /// The same with room for so many bytes of items from the start, in a session that passes this gate.
    pub fn in_session(self, limit: u64, gate: Option<Arc<Gate>>) -> Self {
        Self { limit: AtomicU64::new(limit), gate, ..self }
    }

    /// Takes all outcomes that are there into `news`, which is empty. Returns whether the job has ended, so that no more will come.
    #[inline]
    pub fn take(&self, news: &mut VecDeque<News>) -> bool {
        debug_assert!(news.is_empty(), "what was there would be lost");
        let mut state = self.state();
        self.unseen.store(false, Ordering::Relaxed);
        *news = state.take_news(std::mem::take(news));
        state.end.is_some()
    }

    /// Whether the job has ended.
    #[inline]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The error that the whole job ended with, if it did not finish.
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
        Some(self.tell(error))
    }

    /// The verb that the job was called with.
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// The label of the job; empty: none.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Says in the error which job it is about; the error is the session's, or the one that the front makes of that.
    pub fn tell<E: From<Error>>(&self, error: impl Into<Error>) -> E {
        error.into().of_job(self.verb, &self.label).into()
    }

    /// Whatever the end will be, the job has failed as a whole with this error; the first one counts.
    pub fn break_with(&self, error: impl Into<Error>) {
        let error = error.into();
        self.state().broken.get_or_insert(error);
    }

    /// An item was given up before it got to the session.
    pub fn refuse(&self, item: u64, error: impl Into<Error>) {
        let error = error.into();
        self.deliver(1, News::Failed { first: item, count: 1, error }).wake();
    }

    /// How many items have had their outcome.
    #[inline]
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// How many items were pulled from the input so far; an outcome for any other is not believed.
    #[inline]
    pub fn pulled(&self) -> u64 {
        self.pulled.load(Ordering::Relaxed)
    }

    /// Notes how many items were pulled from the input so far.
    #[inline]
    pub fn set_pulled(&self, items: u64) {
        self.pulled.store(items, Ordering::Relaxed);
    }

    /// Wakes the task at the next news; look again afterwards for what came before.
    pub fn set_waker(&self, waker: &Waker) {
        // To copy one and to drop one is an executor's code, which may do anything: not under the lock.
        let sleeper = Sleeper { waker: waker.clone(), _waits: self.begin_wait() };
        let before = self.state().waker.replace(sleeper);
        drop(before);
        self.knock();
    }

    /// Ready when an item has had its outcome, or the job has ended.
    pub async fn first_outcome(&self) {
        let is_there = || self.finished() > 0 || self.ended();
        poll_fn(|context| {
            if !is_there() {
                self.set_waker(context.waker());
            }
            // What has come since then has woken the waker, and what came before it is seen here.
            if is_there() { Poll::Ready(()) } else { Poll::Pending }
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

    /// Somebody asks for the job's outcomes, or is about to wait for them: the session must read on.
    pub fn knock(&self) {
        if let Some(gate) = &self.gate {
            gate.knock();
        }
    }

    /// Whoever works through the outcomes as they come has gone.
    pub fn lose_consumer(&self) {
        if self.interest == Interest::Outcomes {
            self.discard();
        }
    }

    /// Nobody will ever take what is delivered: keep nothing.
    pub fn discard(&self) {
        let mut state = self.state();
        state.discarding = true;
        let unwanted = state.take_news(VecDeque::new());
        let sleeper = state.waker.take();
        drop(state);
        drop((unwanted, sleeper));
    }

    /// How many bytes of items may have been sent.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether a further message of items may be sent.
    #[inline]
    pub fn has_room(&self, room: Room) -> bool {
        room.sent_bytes < self.limit() || self.finished() >= room.finished
    }

    /// Sleeps until there is room or the job has ended, whatever the consumer waits for.
    pub fn park_until_room(&self, room: Room) {
        while !self.has_room(room) && !self.ended() {
            self.unpark_for_room(room);
            // What has come since then has unparked this thread, and what came before it is seen here.
            if !self.has_room(room) && !self.ended() {
                thread::park();
            }
        }
    }

    /// Has this thread unparked once, when there is room or the job has ended; look again afterwards for what came before.
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
