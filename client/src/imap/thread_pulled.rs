//! A lazy job with a separate thread that pulls its input, so that the input may depend on outcomes.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use farpool_session::fork::Owned;
use farpool_session::{Call, End, Inbox, Room, Session};

use super::arrivals::Arrivals;
use super::consumer::{Consumer, Step};
use super::window::Window;
use crate::args::Data;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::feeder::Feeder;
use crate::panics;
use crate::singles::Singles;

/// The input of a lazy job, which a separate thread pulls. This is the consumer's side of it.
pub(crate) struct ThreadPulled {
    /// Starts the thread that pulls; `None` once it has started.
    start: Option<Start>,
    shared: Arc<Shared>,
}

/// Opens the job and starts its feeding thread.
type Start = Box<dyn FnOnce(&mut Call) -> Result<(), Error> + Send>;

/// State that both sides share: how far the input is ahead of the consumer.
struct Shared {
    state: Mutex<SharedState>,
}

struct SharedState {
    window: Window,
    pulled: u64,
    taken: u64,
    /// Bytes of results that the consumer has not taken yet.
    held: u64,
    /// The thread that pulls.
    thread: Option<Thread>,
    /// The consumer was dropped.
    abandoned: bool,
}

impl ThreadPulled {
    pub(super) fn new<T: Data>(
        feeder: Feeder<Singles<impl Iterator<Item = T> + Send + 'static>>,
        window: Window,
    ) -> Self {
        let state = SharedState { window, pulled: 0, taken: 0, held: 0, thread: None, abandoned: false };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let with_thread = Arc::clone(&shared);
        let start = Box::new(move |call: &mut Call| start(call, feeder, with_thread));
        Self { start: Some(start), shared }
    }

    pub(super) fn step<R: Data>(&mut self, consumer: &mut Consumer) -> Result<Step<R>, Error> {
        if let Some(start) = self.start.take() {
            start(&mut consumer.call)?;
        }
        loop {
            if let Some(outcome) = consumer.pop()? {
                self.shared.note_taken(&consumer.arrivals, consumer.call.session.slots());
                return Ok(Step::Outcome(outcome));
            }
            if !consumer.has_arrivals() {
                return Ok(Step::Wait);
            }
            if consumer.take_deliveries()? {
                consumer.finish();
                return match consumer.call.inbox.end_error() {
                    Some(error) => Ok(Step::Outcome(Err(error.into()))),
                    None => Ok(Step::Over),
                };
            }
        }
    }

    /// Lets the thread end: the consumer was dropped.
    pub(super) fn abandon(&self) {
        let mut state = self.shared.state();
        state.abandoned = true;
        if let Some(thread) = &state.thread {
            thread.unpark();
        }
    }
}

impl Shared {
    /// Records that the consumer has taken one of these outcomes.
    fn note_taken(&self, arrivals: &Arrivals, slots: u32) {
        let mut state = self.state();
        state.taken += 1;
        let expected = arrivals.expected_bytes(state.pulled.saturating_sub(state.taken), slots.into());
        state.held = arrivals.bytes().saturating_add(expected);
        state.window.note_taken();
        if state.is_due()
            && let Some(thread) = &state.thread
        {
            thread.unpark();
        }
    }

    fn state(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedState {
    fn is_due(&self) -> bool {
        let ahead = self.pulled.saturating_sub(self.taken);
        self.window.room(ahead) > 0 && self.window.is_due_before_waiting(ahead)
    }
}

/// Opens the job and starts the thread that feeds it.
fn start<T: Data>(
    call: &mut Call,
    feeder: Feeder<Singles<impl Iterator<Item = T> + Send + 'static>>,
    shared: Arc<Shared>,
) -> Result<(), Error> {
    call.flush()?;
    let mut pulling = PullingThread { session: call.session.clone(), inbox: call.inbox.clone(), feeder, shared };
    let spawned =
        thread::Builder::new().name("farpool-feeder".to_owned()).stack_size(codec::STACK).spawn(move || pulling.feed());
    spawned.map(drop).map_err(|error| {
        let message = format!("cannot start the thread that feeds the job: {error}");
        call.inbox.add_context(Error::new(ErrorKind::Unavailable, message))
    })
}

/// The pulling thread's side of the job.
struct PullingThread<I> {
    session: Session,
    inbox: Owned<Arc<Inbox>>,
    feeder: Feeder<Singles<I>>,
    shared: Arc<Shared>,
}

impl<T: Data, I: Iterator<Item = T>> PullingThread<I> {
    fn feed(&mut self) {
        self.shared.state().thread = Some(thread::current());
        let mut messages = Vec::new();
        while let Some(()) = self.wait_for_room() {
            // One at a time: the input may wait for the outcome of the previous item. After a panic the input is never called
            // again, so an inconsistent state is never seen.
            let fed = panic::catch_unwind(AssertUnwindSafe(|| self.feeder.feed(1, &self.inbox, &mut messages)));
            if !self.session.owner().is_here() {
                // The input has forked this process, and this is the child: the job belongs to the parent.
                return;
            }
            if let Err(panic) = fed {
                let (items, words) = (self.feeder.pulled(), panics::message(&*panic));
                let message = format!("the input iterator panicked after {items} items: {words}");
                return self.fail_job(Error::new(ErrorKind::Panicked, message));
            }
            self.shared.state().pulled = self.feeder.pulled();
            if let Err(error) = self.session.send(&mut messages) {
                return self.fail_job(error);
            }
        }
    }

    /// Sleeps until the next item may be pulled. `None`: no more items are pulled.
    fn wait_for_room(&self) -> Option<()> {
        loop {
            let wanted = {
                let state = self.shared.state();
                if state.is_due() { self.feeder.room_wanted(state.held) } else { Room::NEVER }
            };
            self.inbox.unpark_for_room(wanted);
            // Any later change unparks this thread.
            let mut state = self.shared.state();
            if state.abandoned || self.feeder.exhausted() || self.inbox.ended() {
                return None;
            }
            state.window.follow(self.session.slots());
            if state.is_due() && self.feeder.may_feed(&self.inbox, state.held) {
                state.window.start();
                return Some(());
            }
            drop(state);
            thread::park();
        }
    }

    fn fail_job(&self, error: impl Into<farpool_session::Error>) {
        // Before the cancellation: after it, the job's end may arrive at any moment.
        self.inbox.break_with(error);
        farpool_session::cancel(&self.session, &self.inbox);
        self.inbox.end(End::Cancelled).wake();
    }
}
