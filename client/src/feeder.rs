//! Pulls items from the input, encodes them into batches, and knows when to stop for the window.

mod batch;
mod in_flight;
mod pace;
#[cfg(test)]
mod tests;

use farpool_proto::v1::EndItems;
use farpool_proto::v1::client_message::Body;

use crate::args::Args;
use crate::error::Error;
use crate::inbox::Inbox;
pub(crate) use batch::Batch;
use in_flight::InFlight;
use pace::Pace;

/// Encoded input that has not finished, and results that were not taken, of one job: a job that has more pulls nothing.
pub(crate) const WINDOW_BYTES: u64 = 64 << 20;

/// The input side of one job.
pub(crate) struct Feeder<I> {
    input: I,
    exhausted: bool,
    job: u64,
    pulled: u64,
    /// Items of an explicit chunk; 0: none. A chunk starts when it is whole, so the window must not cut one off.
    chunksize: u64,
    payload_limit: u64,
    pace: Pace,
    in_flight: InFlight,
}

impl<I> Feeder<I> {
    pub(crate) fn new(input: I, job: u64, chunksize: u64, payload_limit: u64) -> Self {
        Self {
            input,
            exhausted: false,
            job,
            pulled: 0,
            chunksize,
            payload_limit,
            pace: Pace::new(),
            in_flight: InFlight::default(),
        }
    }

    /// How many items were pulled so far.
    pub(crate) fn pulled(&self) -> u64 {
        self.pulled
    }

    /// Whether the input has come to its end.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Whether the window has room. `held`: bytes of results that the consumer has not taken yet.
    pub(crate) fn may_feed(&mut self, finished: u64, held: u64) -> bool {
        !self.exhausted && (self.in_flight.bytes(finished) + held < WINDOW_BYTES || self.chunk_is_open(finished))
    }

    /// How many items must have finished until half of a full window is free again.
    pub(crate) fn resume_at(&self, finished: u64) -> u64 {
        self.in_flight.items_to_halve().max(finished + 1)
    }

    // With fewer unfinished items than a chunk has, there may be no whole chunk that could finish and make room.
    fn chunk_is_open(&self, finished: u64) -> bool {
        self.pulled - finished.min(self.pulled) < self.chunksize
    }
}

impl<A: Args, I: Iterator<Item = A>> Feeder<I> {
    /// A lower bound of the number of items, and the exact number if the input knows it.
    pub(crate) fn size(&self) -> (usize, Option<u64>) {
        let (lower, upper) = self.input.size_hint();
        (lower, upper.filter(|&upper| upper == lower).map(|exact| exact as u64))
    }

    /// Whether the input says that it ends, and so most likely does not wait for anything.
    pub(crate) fn is_bounded(&self) -> bool {
        self.input.size_hint().1.is_some()
    }

    /// Pulls one batch, of at most `room` items, and appends what there is to send. An item that cannot be sent
    /// becomes an error in the inbox. If the input panics, it is taken to be exhausted, without an `EndItems`.
    pub(crate) fn feed(&mut self, room: u64, inbox: &Inbox, messages: &mut Vec<Body>) {
        if self.exhausted {
            return;
        }
        self.exhausted = true;
        let limit = room.min(self.pace.items());
        let mut batch = self.start_batch(self.pulled, limit);
        let start = self.pulled;
        let mut ended = false;
        while self.pulled - start < limit && !batch.is_full() {
            let Some(args) = self.input.next() else {
                ended = true;
                break;
            };
            let item = self.pulled;
            self.pulled += 1;
            if let Err(error) = batch.push(&args, self.payload_limit) {
                self.send(batch, messages);
                inbox.refuse(item, error);
                batch = self.start_batch(item + 1, start + limit - item);
            }
        }
        self.pace.note(self.pulled - start);
        inbox.set_pulled(self.pulled);
        self.send(batch, messages);
        self.exhausted = ended;
        if ended {
            messages.push(Body::EndItems(EndItems { job: self.job }));
        }
    }

    fn start_batch(&mut self, first: u64, items: u64) -> Batch {
        self.pace.start();
        Batch::new(first, items, self.in_flight.typical_bytes())
    }

    fn send(&mut self, batch: Batch, messages: &mut Vec<Body>) {
        if batch.items() > 0 {
            self.in_flight.add(batch.end(), batch.items(), batch.bytes());
            messages.push(Body::Items(batch.into_message(self.job)));
        }
    }
}

/// Encodes the only item of a job, as messages that open its input and end it.
pub(crate) fn feed_one<A: Args>(args: &A, job: u64, payload_limit: u64, messages: &mut Vec<Body>) -> Result<(), Error> {
    let mut batch = Batch::new(0, 1, 64);
    batch.push(args, payload_limit).map_err(|error| error.of_item(0))?;
    messages.push(Body::Items(batch.into_message(job)));
    messages.push(Body::EndItems(EndItems { job }));
    Ok(())
}
