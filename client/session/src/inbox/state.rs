use std::collections::VecDeque;
use std::task::Waker;
use std::thread::Thread;

use super::{End, EndHook, News};
use crate::error::Error;
use crate::waits::Waiting;

#[derive(Default)]
pub(super) struct State {
    news: VecDeque<News>,
    /// Where among them the failure with the lowest index is, if only that matters.
    lowest_failed: Option<usize>,
    pub(super) end: Option<End>,
    pub(super) broken: Option<Error>,
    pub(super) discarding: bool,
    pub(super) waker: Option<Sleeper>,
    pub(super) parked: Vec<Thread>,
    /// The thread that pulls further input, and what it waits for.
    pub(super) feeder: Option<(Room, Thread)>,
    pub(super) hooks: Vec<EndHook>,
}

/// When a further message of items may be sent: as soon as one of the two holds.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The limit is above these bytes, which were sent so far.
    pub sent_bytes: u64,
    /// That many items have had their outcome.
    pub finished: u64,
}

impl Room {
    /// There is never room: only the job's end is waited for.
    pub const NEVER: Room = Room { sent_bytes: u64::MAX, finished: u64::MAX };
}

/// Whom a delivery wakes. To be done once no lock is held: a waker is an executor's code, which may do anything.
#[derive(Default)]
#[must_use = "whoever waits would not hear of the delivery"]
pub struct Wakes {
    pub(super) waker: Option<Sleeper>,
    pub(super) parked: Vec<Thread>,
    pub(super) feeder: Option<Thread>,
}

/// A task that waits.
pub(super) struct Sleeper {
    pub(super) waker: Waker,
    /// None: what it waits for is here, in this process.
    pub(super) _waits: Option<Waiting>,
}

impl State {
    /// Keeps news for somebody who looks at all of it.
    #[inline]
    pub(super) fn keep(&mut self, news: News) {
        self.push(news);
    }

    /// Keeps news for somebody who looks when all has come: then the failure with the lowest index counts, if there is one, and
    /// nothing behind it.
    pub(super) fn keep_what_counts(&mut self, news: News) {
        let lowest = self.lowest_failed.and_then(|at| self.news.get_mut(at));
        match (&news, lowest) {
            (_, Some(lowest)) if news.first() > lowest.first() => {}
            (News::Failed { .. }, Some(lowest)) => *lowest = news,
            (News::Failed { .. }, None) => {
                self.lowest_failed = Some(self.news.len());
                self.push(news);
            }
            (News::Done { .. }, _) => self.push(news),
        }
    }

    #[inline]
    fn push(&mut self, news: News) {
        if self.news.capacity() == 0 {
            // Most jobs of one item get no more.
            self.news.reserve_exact(1);
        }
        self.news.push_back(news);
    }

    #[inline]
    pub(super) fn take_news(&mut self, others: VecDeque<News>) -> VecDeque<News> {
        self.lowest_failed = None;
        std::mem::replace(&mut self.news, others)
    }

    pub(super) fn all_wakes(&mut self) -> Wakes {
        let feeder = self.feeder.take().map(|(_, thread)| thread);
        Wakes { feeder, ..self.consumer_wakes() }
    }

    #[inline]
    pub(super) fn consumer_wakes(&mut self) -> Wakes {
        Wakes { waker: self.waker.take(), parked: std::mem::take(&mut self.parked), feeder: None }
    }
}

impl Wakes {
    /// Whether there is nobody to wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waker.is_none() && self.parked.is_empty() && self.feeder.is_none()
    }

    /// Wakes them.
    pub fn wake(self) {
        if let Some(sleeper) = self.waker {
            sleeper.waker.wake();
        }
        self.parked.iter().chain(&self.feeder).for_each(Thread::unpark);
    }
}
