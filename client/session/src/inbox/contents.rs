use std::collections::VecDeque;
use std::task::Waker;
use std::thread::Thread;

use super::{Delivery, End, EndHook};
use crate::error::Error;
use crate::waits::Waiting;

#[derive(Default)]
pub(super) struct Contents {
    deliveries: VecDeque<Delivery>,
    /// Position of the failure with the lowest index, if only that matters.
    lowest_failed: Option<usize>,
    pub(super) end: Option<End>,
    pub(super) broken: Option<Error>,
    pub(super) discarding: bool,
    pub(super) waker: Option<Sleeper>,
    pub(super) parked: Vec<Thread>,
    /// The thread that pulls further input, and the room that it waits for.
    pub(super) feeder: Option<(Room, Thread)>,
    pub(super) hooks: Vec<EndHook>,
}

/// The condition for another message of items: either of the two is enough.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The limit is above this number of bytes, sent so far.
    pub sent_bytes: u64,
    /// This many items have an outcome.
    pub finished: u64,
}

impl Room {
    /// Never true: waits only for the job's end.
    pub const NEVER: Room = Room { sent_bytes: u64::MAX, finished: u64::MAX };
}

/// The threads and tasks that a delivery wakes. Wake them only without a lock: a waker runs an executor's code, which may do
/// anything.
#[derive(Default)]
#[must_use = "waiting threads and tasks would miss the delivery"]
pub struct Wakes {
    pub(super) waker: Option<Sleeper>,
    pub(super) parked: Vec<Thread>,
    pub(super) feeder: Option<Thread>,
}

/// A waiting task.
pub(super) struct Sleeper {
    pub(super) waker: Waker,
    /// `None`: it waits for something in this process.
    pub(super) _waits: Option<Waiting>,
}

impl Contents {
    /// Keeps a delivery for a consumer that takes every one.
    #[inline]
    pub(super) fn keep(&mut self, delivery: Delivery) {
        self.push(delivery);
    }

    /// Keeps a delivery for a consumer that waits for the end: of the failures only the one with the lowest index counts,
    /// and nothing after it.
    pub(super) fn keep_lowest_failure(&mut self, delivery: Delivery) {
        let lowest = self.lowest_failed.and_then(|at| self.deliveries.get_mut(at));
        match (&delivery, lowest) {
            (_, Some(lowest)) if delivery.first() > lowest.first() => {}
            (Delivery::Failed { .. }, Some(lowest)) => *lowest = delivery,
            (Delivery::Failed { .. }, None) => {
                self.lowest_failed = Some(self.deliveries.len());
                self.push(delivery);
            }
            (Delivery::Done { .. }, _) => self.push(delivery),
        }
    }

    #[inline]
    fn push(&mut self, delivery: Delivery) {
        if self.deliveries.capacity() == 0 {
            // Most jobs have one item, and need no more.
            self.deliveries.reserve_exact(1);
        }
        self.deliveries.push_back(delivery);
    }

    #[inline]
    pub(super) fn take_deliveries(&mut self, others: VecDeque<Delivery>) -> VecDeque<Delivery> {
        self.lowest_failed = None;
        std::mem::replace(&mut self.deliveries, others)
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
    /// Returns whether there is nothing to wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waker.is_none() && self.parked.is_empty() && self.feeder.is_none()
    }

    /// Wakes all of them.
    pub fn wake(self) {
        if let Some(sleeper) = self.waker {
            sleeper.waker.wake();
        }
        self.parked.iter().chain(&self.feeder).for_each(Thread::unpark);
    }
}
