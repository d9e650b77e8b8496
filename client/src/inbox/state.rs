use std::collections::VecDeque;
use std::task::Waker;
use std::thread::Thread;

use super::{End, EndHook, Interest, News};
use crate::error::Error;

#[derive(Default)]
pub(super) struct State {
    pub(super) news: VecDeque<News>,
    pub(super) end: Option<End>,
    pub(super) broken: Option<Error>,
    pub(super) discarding: bool,
    pub(super) waker: Option<Waker>,
    pub(super) parked: Vec<Thread>,
    /// The thread that pulls further input, and how many items must have finished before it goes on.
    pub(super) feeder: Option<(u64, Thread)>,
    pub(super) hooks: Vec<EndHook>,
}

/// Whom a delivery wakes. To be done once no lock is held: a waker is an executor's code, which may do anything.
#[derive(Default)]
#[must_use = "whoever waits would not hear of the delivery"]
pub(crate) struct Wakes {
    waker: Option<Waker>,
    parked: Vec<Thread>,
    feeder: Option<Thread>,
}

impl State {
    pub(super) fn wakes_after_delivery(&mut self, interest: Interest, finished: u64) -> Wakes {
        let feeder = self.feeder.take_if(|(items, _)| *items <= finished).map(|(_, thread)| thread);
        match interest {
            Interest::Outcomes => Wakes { feeder, ..self.consumer_wakes() },
            Interest::End => Wakes { waker: None, parked: Vec::new(), feeder },
        }
    }

    pub(super) fn all_wakes(&mut self) -> Wakes {
        let feeder = self.feeder.take().map(|(_, thread)| thread);
        Wakes { feeder, ..self.consumer_wakes() }
    }

    fn consumer_wakes(&mut self) -> Wakes {
        Wakes { waker: self.waker.take(), parked: std::mem::take(&mut self.parked), feeder: None }
    }
}

impl Wakes {
    /// Whether there is nobody to wake.
    pub(crate) fn is_empty(&self) -> bool {
        self.waker.is_none() && self.parked.is_empty() && self.feeder.is_none()
    }

    /// Wakes them.
    pub(crate) fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
        self.parked.iter().chain(&self.feeder).for_each(Thread::unpark);
    }
}
