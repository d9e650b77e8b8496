//! The blocking calls: the caller's thread feeds, and decodes while it would otherwise wait.

use std::collections::VecDeque;

use farpool_session::{Call, Delivery, Inbox, ItemLimit, Results};

use crate::args::{Args, Data};
use crate::codec;
use crate::collector::Collector;
use crate::error::{Error, ErrorKind};
use crate::feeder::{self, Feeder};

/// Runs every item and returns the results in order. A panic of the input cancels the job and reaches the caller.
pub(crate) fn run_all<A: Args, R: Data>(
    mut call: Call,
    mut feeder: Feeder<impl Iterator<Item = A>>,
) -> Result<Vec<R>, Error> {
    let mut collector = Collector::new(feeder.size().0);
    let mut deliveries = VecDeque::new();
    loop {
        if feeder.may_feed(&call.inbox, 0) {
            feeder.feed(u64::MAX, &call.inbox, &mut call.messages);
            call.flush()?;
        } else if !call.inbox.has_arrivals() {
            call.session.wait(&call.inbox, None);
        }
        if !call.inbox.has_arrivals() {
            continue;
        }
        let ended = call.inbox.take(&mut deliveries);
        for delivery in deliveries.drain(..) {
            collector.accept(delivery, &call.inbox)?;
        }
        if feeder.exhausted() && collector.outcomes() == feeder.pulled() {
            call.settle();
            return collector.finish(feeder.pulled());
        }
        if ended {
            return Err(ended_early(&call.inbox));
        }
    }
}

/// Runs one item and returns its result.
pub(crate) fn run_one<A: Args, R: Data>(mut call: Call, args: &A, limit: ItemLimit) -> Result<R, Error> {
    feeder::feed_one(args, call.inbox.job(), limit, &mut call.messages)
        .map_err(|error| call.inbox.add_context::<Error>(error))?;
    call.inbox.set_pulled(1);
    call.flush_and_wait()?;
    let mut deliveries = VecDeque::new();
    loop {
        let ended = call.inbox.take(&mut deliveries);
        if let Some(first) = deliveries.pop_front() {
            call.settle();
            return outcome(first, &call.inbox);
        }
        if ended {
            return Err(ended_early(&call.inbox));
        }
        call.session.wait(&call.inbox, None);
    }
}

/// Returns the error of a job that ended before all its items had an outcome.
pub(crate) fn ended_early(inbox: &Inbox) -> Error {
    inbox.end_error().map_or_else(
        || inbox.add_context(Error::protocol("the job ended although outcomes of items are missing")),
        Error::from,
    )
}

fn outcome<R: Data>(delivery: Delivery, inbox: &Inbox) -> Result<R, Error> {
    match delivery {
        Delivery::Done { first, data, ends, attempts: _, held: _until_decoded } => {
            let mut results = Results::new(first, data, ends, inbox.pulled())?;
            let (item, bytes) =
                results.next().unwrap_or_else(|| Err(farpool_session::Error::protocol("a result is empty")))?;
            codec::decode(bytes).map_err(|error| inbox.add_context(Error::new(ErrorKind::Codec, error.0).of_item(item)))
        }
        Delivery::Failed { first, error, .. } => Err(inbox.add_context(error.of_item(first))),
    }
}
