use std::panic::{self, AssertUnwindSafe};

use super::consumer::{Consumer, Step};
use super::window::Window;
use crate::args::Data;
use crate::error::Error;
use crate::feeder::Feeder;
use crate::map::ended_early;
use crate::singles::Singles;

/// The input of a lazy job, which the consumer's thread pulls.
pub(crate) struct CallerPulled<I> {
    feeder: Feeder<Singles<I>>,
    window: Window,
    /// How many outcomes were taken.
    taken: u64,
}

impl<T: Data, I: Iterator<Item = T>> CallerPulled<I> {
    pub(super) fn new(feeder: Feeder<Singles<I>>, window: Window) -> Self {
        Self { feeder, window, taken: 0 }
    }

    pub(super) fn step<R: Data>(&mut self, consumer: &mut Consumer) -> Result<Step<R>, Error> {
        // At most one batch before each outcome: a slow input must not delay outcomes that are here.
        if self.window.is_due(self.ahead()) {
            self.feed(consumer)?;
        }
        loop {
            if let Some(outcome) = consumer.pop()? {
                self.taken += 1;
                self.window.note_taken();
                return Ok(Step::Outcome(outcome));
            }
            if self.feeder.exhausted() && self.ahead() == 0 {
                // The job's end is on the way.
                consumer.finish();
                return Ok(Step::Over);
            }
            if consumer.has_arrivals() {
                if consumer.take_deliveries()? {
                    return Err(ended_early(&consumer.call.inbox));
                }
            } else if !self.window.is_due_before_waiting(self.ahead()) || !self.feed(consumer)? {
                return Ok(Step::Wait);
            }
        }
    }

    /// Pulls and sends one batch, if there is room. Returns whether anything has changed.
    fn feed(&mut self, consumer: &mut Consumer) -> Result<bool, Error> {
        // Results in the inbox count too: they are no longer counted as input.
        let has_arrivals = consumer.has_arrivals();
        if has_arrivals {
            consumer.take_deliveries()?;
        }
        let slots = consumer.call.session.slots();
        self.window.follow(slots);
        let room = self.window.room(self.ahead());
        let running = u64::from(slots);
        let (arrivals, inbox) = (&consumer.arrivals, &consumer.call.inbox);
        let results = arrivals.bytes().saturating_add(arrivals.expected_bytes(self.ahead(), running));
        if room == 0 || !self.feeder.may_feed(inbox, results) {
            return Ok(has_arrivals);
        }
        // A batch is checked only once, so it must not be larger than the room that its results leave.
        let left = self.feeder.bytes_left(inbox, results);
        let room = room.min(left.checked_div(arrivals.recent_bytes()).map_or(room, |items| items.max(running)));
        self.window.start();
        consumer.call.resume();
        let (feeder, call) = (&mut self.feeder, &mut consumer.call);
        // After a panic the input is never called again: an inconsistent state is never seen.
        let fed = panic::catch_unwind(AssertUnwindSafe(|| feeder.feed(room, &call.inbox, &mut call.messages)));
        if let Err(panic) = fed {
            consumer.cancel();
            panic::resume_unwind(panic);
        }
        consumer.call.flush()?;
        Ok(true)
    }

    /// Returns the number of items that were pulled and whose outcomes were not taken yet.
    fn ahead(&self) -> u64 {
        self.feeder.pulled() - self.taken
    }
}
