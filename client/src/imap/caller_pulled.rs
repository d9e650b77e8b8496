use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::task::Waker;

use farpool_session::fork::{self, Owner};
use farpool_session::{Call, News};

use super::arrivals::{Arrivals, Order};
use super::window::Window;
use crate::args::Data;
use crate::error::Error;
use crate::feeder::Feeder;
use crate::map::ended_early;
use crate::progress::Progress;
use crate::singles::Singles;

/// A lazy job: its input, the items in flight, and the outcomes that have arrived.
pub(crate) struct CallerPulled<I> {
    call: Call,
    feeder: Feeder<Singles<I>>,
    arrivals: Arrivals,
    window: Window,
    /// Empty between steps; kept to reuse its memory.
    news: VecDeque<News>,
    taken: u64,
    ended: bool,
    _progress: Option<Progress>,
}

pub(super) enum Step<R> {
    Outcome(Result<R, Error>),
    Over,
    /// No step is possible until there is news.
    Wait,
}

impl<I> CallerPulled<I> {
    /// Returns the process that it belongs to.
    pub(super) fn owner(&self) -> Owner {
        self.call.session.owner()
    }
}

impl<I> CallerPulled<I> {
    pub(super) fn attempts(&self) -> u32 {
        self.arrivals.attempts()
    }

    pub(super) fn stop_retries(&mut self) {
        self.call.stop_retries();
    }
}

impl<T: Data, I: Iterator<Item = T>> CallerPulled<I> {
    pub(crate) fn new(
        call: Call,
        feeder: Feeder<Singles<I>>,
        order: Order,
        buffersize: Option<u64>,
        chunksize: u64,
        progress: Option<Progress>,
    ) -> Self {
        let window = Window::new(buffersize, chunksize, call.session.slots());
        let arrivals = Arrivals::new(order);
        Self { call, feeder, arrivals, window, news: VecDeque::new(), taken: 0, ended: false, _progress: progress }
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
        // At most one batch before each outcome: a slow input must not delay outcomes that are here.
        if self.window.is_due(self.ahead()) {
            self.feed()?;
        }
        loop {
            if let Some(outcome) = self.arrivals.pop(&self.call.inbox)? {
                self.taken += 1;
                self.window.note_taken();
                return Ok(Step::Outcome(outcome));
            }
            if self.feeder.exhausted() && self.ahead() == 0 {
                self.ended = true;
                // Its end is on the way; there is nothing to cancel.
                self.call.settle();
                return Ok(Step::Over);
            }
            if self.call.inbox.has_news() {
                if self.take_news()? {
                    return Err(ended_early(&self.call.inbox));
                }
            } else if !self.window.is_due_before_waiting(self.ahead()) || !self.feed()? {
                return Ok(Step::Wait);
            }
        }
    }

    /// Takes the outcomes that have arrived; returns whether there were none and never will be.
    fn take_news(&mut self) -> Result<bool, Error> {
        let ended = self.call.inbox.take(&mut self.news);
        let dried_up = ended && self.news.is_empty();
        self.news.drain(..).try_for_each(|news| self.arrivals.add(news, &self.call.inbox))?;
        Ok(dried_up)
    }

    /// Pulls and sends one batch, if there is room. Returns whether anything has changed.
    fn feed(&mut self) -> Result<bool, Error> {
        // Results in the inbox count too: they are no longer counted as input.
        let has_news = self.call.inbox.has_news();
        if has_news {
            self.take_news()?;
        }
        let slots = self.call.session.slots();
        self.window.follow(slots);
        let room = self.window.room(self.ahead());
        let running = u64::from(slots);
        let results = self.arrivals.bytes().saturating_add(self.arrivals.expected_bytes(self.ahead(), running));
        if room == 0 || !self.feeder.may_feed(&self.call.inbox, results) {
            return Ok(has_news);
        }
        // A batch is checked only once, so it must not be larger than the room that its results leave.
        let left = self.feeder.bytes_left(&self.call.inbox, results);
        let room = room.min(left.checked_div(self.arrivals.recent_bytes()).map_or(room, |items| items.max(running)));
        self.window.start();
        let (feeder, call) = (&mut self.feeder, &mut self.call);
        // After a panic the input is never called again: an inconsistent state is never seen.
        let fed = panic::catch_unwind(AssertUnwindSafe(|| feeder.feed(room, &call.inbox, &mut call.messages)));
        if let Err(panic) = fed {
            self.ended = true;
            self.call.cancel();
            panic::resume_unwind(panic);
        }
        self.call.flush()?;
        Ok(true)
    }

    /// Returns the number of items that were pulled and whose outcomes were not taken yet.
    fn ahead(&self) -> u64 {
        self.feeder.pulled() - self.taken
    }
}
