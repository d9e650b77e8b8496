use std::task::Waker;

use farpool_session::fork::{self, Owner};

use super::caller_pulled::CallerPulled;
use super::consumer::{Consumer, Step};
use super::thread_pulled::ThreadPulled;
use super::window::Window;
use crate::args::Data;
use crate::error::Error;
use crate::feeder::Feeder;
use crate::singles::Singles;

/// A job whose input is pulled, and whose outcomes are taken, one at a time.
pub(crate) struct LazyJob<I> {
    consumer: Consumer,
    input: LazyInput<I>,
}

/// The input, by who pulls it.
pub(crate) enum LazyInput<I> {
    /// The consumer's thread.
    Caller(CallerPulled<I>),
    /// A separate thread.
    Thread(ThreadPulled),
}

impl<T: Data, I: Iterator<Item = T>> LazyInput<I> {
    pub(crate) fn caller(feeder: Feeder<Singles<I>>, window: Window) -> Self {
        Self::Caller(CallerPulled::new(feeder, window))
    }

    pub(crate) fn thread(feeder: Feeder<Singles<I>>, window: Window) -> Self
    where
        I: Send + 'static,
    {
        Self::Thread(ThreadPulled::new(feeder, window))
    }
}

impl<I> LazyJob<I> {
    pub(crate) fn new(consumer: Consumer, input: LazyInput<I>) -> Self {
        Self { consumer, input }
    }

    /// Returns the process that it belongs to.
    pub(super) fn owner(&self) -> Owner {
        self.consumer.call.session.owner()
    }

    pub(super) fn attempts(&self) -> u32 {
        self.consumer.arrivals.attempts()
    }

    pub(super) fn stop_retries(&mut self) {
        self.consumer.call.stop_retries();
    }

    /// Blocks until something has arrived.
    pub(super) fn wait(&self) {
        self.consumer.call.session.wait(&self.consumer.call.inbox, None);
    }

    /// Wakes the task when something arrives; returns whether something already has.
    pub(super) fn wake_on_arrival(&self, waker: &Waker) -> bool {
        self.consumer.call.inbox.set_waker(waker);
        self.consumer.has_arrivals()
    }
}

impl<T: Data, I: Iterator<Item = T>> LazyJob<I> {
    /// Makes one step towards the next outcome.
    pub(super) fn step<R: Data>(&mut self) -> Step<R> {
        if self.consumer.has_ended() {
            return Step::Over;
        }
        self.try_step().unwrap_or_else(|error| {
            self.consumer.cancel();
            Step::Outcome(Err(error))
        })
    }

    fn try_step<R: Data>(&mut self) -> Result<Step<R>, Error> {
        let Self { consumer, input } = self;
        let call = &consumer.call;
        fork::check_pool(call.session.owner()).map_err(|error| call.inbox.add_context::<Error>(error))?;
        match input {
            LazyInput::Caller(input) => input.step(consumer),
            LazyInput::Thread(input) => input.step(consumer),
        }
    }
}

impl<I> Drop for LazyJob<I> {
    fn drop(&mut self) {
        // Before the job is cancelled: the thread pulls no further item for it.
        if let LazyInput::Thread(input) = &self.input {
            input.abandon();
        }
    }
}
