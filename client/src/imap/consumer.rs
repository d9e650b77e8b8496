use std::collections::VecDeque;

use farpool_session::{Call, Delivery};

use super::arrivals::{Arrivals, Order};
use crate::args::Data;
use crate::error::Error;
use crate::progress::Progress;

/// The consumer's side of a lazy job: the call, and the outcomes that have arrived.
pub(crate) struct Consumer {
    pub(super) call: Call,
    pub(super) arrivals: Arrivals,
    /// Empty between steps; kept to reuse its memory.
    deliveries: VecDeque<Delivery>,
    ended: bool,
    _progress: Option<Progress>,
}

/// What the consumer can do next.
pub(super) enum Step<R> {
    Outcome(Result<R, Error>),
    Over,
    /// No step is possible until something arrives.
    Wait,
}

impl Consumer {
    pub(crate) fn new(mut call: Call, order: Order, progress: Option<Progress>) -> Self {
        // The first step may be much later.
        call.postpone();
        Self { call, arrivals: Arrivals::new(order), deliveries: VecDeque::new(), ended: false, _progress: progress }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn has_arrivals(&self) -> bool {
        self.call.inbox.has_arrivals()
    }

    /// Takes the next outcome. The outer error is about the whole job.
    pub(super) fn pop<R: Data>(&mut self) -> Result<Option<Result<R, Error>>, Error> {
        self.arrivals.pop(&self.call.inbox)
    }

    /// Takes the outcomes that have arrived; returns whether there were none and never will be.
    pub(super) fn take_deliveries(&mut self) -> Result<bool, Error> {
        let ended = self.call.inbox.take(&mut self.deliveries);
        let dried_up = ended && self.deliveries.is_empty();
        self.deliveries.drain(..).try_for_each(|delivery| self.arrivals.add(delivery, &self.call.inbox))?;
        Ok(dried_up)
    }

    /// Ends the iteration after the job's last outcome. There is nothing to cancel.
    pub(super) fn finish(&mut self) {
        self.ended = true;
        self.call.settle();
    }

    /// Ends the iteration, and cancels the job.
    pub(super) fn cancel(&mut self) {
        self.ended = true;
        self.call.cancel();
    }
}
