//! A lazy job with a separate thread that pulls its input, so that the input may depend on outcomes.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::{self, Thread};

use farpool_session::fork::{self, Owned, Owner};
use farpool_session::{Call, End, Inbox, News, Room, Session};

use super::arrivals::Arrivals;
use super::arrivals::Order;
use super::caller_pulled::Step;
use super::window::Window;
use crate::args::Data;
use crate::codec;
use crate::error::{Error, ErrorKind};
use crate::feeder::Feeder;
use crate::panics;
use crate::progress::Progress;
use crate::singles::Singles;

/// The consumer's side of the job.
pub(crate) struct ThreadPulled {
    call: Call,
    /// Starts the thread that pulls; `None` once it has started.
    start: Option<Start>,
    shared: Arc<Shared>,
    arrivals: Arrivals,
    /// Empty between steps; kept to reuse its memory.
    news: VecDeque<News>,
    ended: bool,
    _progress: Option<Progress>,
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
    pub(crate) fn new<T: Data>(
        call: Call,
        feeder: Feeder<Singles<impl Iterator<Item = T> + Send + 'static>>,
        order: Order,
        buffersize: Option<u64>,
        chunksize: u64,
        progress: Option<Progress>,
    ) -> Self {
        let window = Window::new(buffersize, chunksize, call.session.slots());
        let state = SharedState { window, pulled: 0, taken: 0, held: 0, thread: None, abandoned: false };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let with_thread = Arc::clone(&shared);
        let start = Box::new(move |call: &mut Call| start(call, feeder, with_thread));
        Self {
            call,
            start: Some(start),
            shared,
            arrivals: Arrivals::new(order),
            news: VecDeque::new(),
            ended: false,
            _progress: progress,
        }
    }

    pub(super) fn owner(&self) -> Owner {
        self.call.session.owner()
    }

    pub(super) fn attempts(&self) -> u32 {
        self.arrivals.attempts()
    }

    pub(super) fn stop_retries(&mut self) {
        self.call.stop_retries();
    }

    /// Makes one step towards the next outcome.
    pub(super) fn step<R: Data>(&mut self) -> Step<R> {
        if self.ended {
            return Step::Over;
        }
        match self.try_step() {
            Ok(step) => step,
            Err(error) => {
                self.ended = true;
                self.call.cancel();
                Step::Outcome(Err(error))
            }
        }
    }

    /// Blocks until there is news.
    pub(super) fn wait(&self) {
        self.call.session.wait(&self.call.inbox, None);
    }

    /// Wakes the task at the next news; returns whether there is some already.
    pub(super) fn wake_for_news(&self, waker: &Waker) -> bool {
        self.call.inbox.set_waker(waker);
        self.call.inbox.has_news()
    }

    fn try_step<R: Data>(&mut self) -> Result<Step<R>, Error> {
        fork::check_pool(self.owner()).map_err(|error| self.call.inbox.add_context::<Error>(error))?;
        if let Some(start) = self.start.take() {
            start(&mut self.call)?;
        }
        loop {
            if let Some(outcome) = self.arrivals.pop(&self.call.inbox)? {
                self.shared.note_taken(&self.arrivals, self.call.session.slots());
                return Ok(Step::Outcome(outcome));
            }
            if !self.call.inbox.has_news() {
                return Ok(Step::Wait);
            }
            let ended = self.call.inbox.take(&mut self.news);
            let dried_up = ended && self.news.is_empty();
            self.news.drain(..).try_for_each(|news| self.arrivals.add(news, &self.call.inbox))?;
            if dried_up {
                self.ended = true;
                self.call.settle();
                return match self.call.inbox.end_error() {
                    Some(error) => Ok(Step::Outcome(Err(error.into()))),
                    None => Ok(Step::Over),
                };
            }
        }
    }
}

impl Drop for ThreadPulled {
    fn drop(&mut self) {
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
                return self.give_up(Error::new(ErrorKind::Panicked, message));
            }
            self.shared.state().pulled = self.feeder.pulled();
            if let Err(error) = self.session.send(&mut messages) {
                return self.give_up(error);
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

    fn give_up(&self, error: impl Into<farpool_session::Error>) {
        // Before the cancellation: after it, the job's end may arrive at any moment.
        self.inbox.break_with(error);
        farpool_session::cancel(&self.session, &self.inbox);
        self.inbox.end(End::Cancelled).wake();
    }
}
