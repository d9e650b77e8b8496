//! Pulls items from the input, encodes them into batches, and stops when the job's window is full.

mod batch;
mod pace;
#[cfg(test)]
mod tests;
mod whole;

use farpool_proto::v1::EndItems;
use farpool_proto::v1::client_message::Body;
use farpool_session::{Inbox, ItemLimit, Room};

use crate::args::Args;
use crate::error::Error;
use crate::pulling;
pub(crate) use batch::Batch;
use pace::Pace;
pub(crate) use whole::WholeInput;

/// The input side of one job.
pub(crate) struct Feeder<I> {
    input: I,
    exhausted: bool,
    job: u64,
    pulled: u64,
    /// Items in a chunk, if that was set; otherwise 0.
    chunksize: u64,
    limit: ItemLimit,
    pace: Pace,
    sent_items: u64,
    sent_bytes: u64,
}

impl<I> Feeder<I> {
    pub(crate) fn new(input: I, job: u64, chunksize: u64, limit: ItemLimit) -> Self {
        Self {
            input,
            exhausted: false,
            job,
            pulled: 0,
            chunksize,
            limit,
            pace: Pace::new(),
            sent_items: 0,
            sent_bytes: 0,
        }
    }

    /// Returns how many items were pulled so far.
    pub(crate) fn pulled(&self) -> u64 {
        self.pulled
    }

    /// Returns whether the input is exhausted.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Returns whether the window has room. `held`: bytes of results that the consumer has not taken yet, which count as if
    /// they were still in flight.
    pub(crate) fn may_feed(&self, inbox: &Inbox, held: u64) -> bool {
        !self.exhausted && inbox.has_room(self.room_wanted(held))
    }

    /// Returns the bytes that the window has room for; `held` as for [`Feeder::may_feed`].
    pub(crate) fn bytes_left(&self, inbox: &Inbox, held: u64) -> u64 {
        inbox.limit().saturating_sub(self.sent_bytes).saturating_sub(held)
    }

    /// Sleeps until the window has room or the job has ended.
    pub(crate) fn wait_for_room(&self, inbox: &Inbox) {
        inbox.park_until_room(self.room());
    }

    /// Returns what the window must have room for; `held` as for [`Feeder::may_feed`].
    pub(crate) fn room_wanted(&self, held: u64) -> Room {
        let room = self.room();
        Room { sent_bytes: room.sent_bytes.saturating_add(held), ..room }
    }

    fn room(&self) -> Room {
        // With fewer unfinished items than a chunk has, there may be no complete chunk that could finish and make room.
        Room { sent_bytes: self.sent_bytes, finished: (self.pulled + 1).saturating_sub(self.chunksize) }
    }
}

impl<A: Args, I: Iterator<Item = A>> Feeder<I> {
    /// Returns a lower bound of the number of items, and the exact number if the input knows it.
    pub(crate) fn size(&self) -> (usize, Option<u64>) {
        let (lower, upper) = self.input.size_hint();
        (lower, upper.filter(|&upper| upper == lower).map(|exact| exact as u64))
    }

    /// Returns whether pulling and encoding run only code of the standard library and of farpool, which never blocks.
    pub(crate) fn never_blocks(&self) -> bool {
        // A wrong answer costs a thread, or the time that a thread would have saved. Types of other crates have other paths.
        const KNOWN: [&str; 3] =
            ["alloc::vec::into_iter::IntoIter<", "core::array::iter::IntoIter<", "core::ops::range::Range"];
        let name = std::any::type_name::<I>();
        let name = name.strip_prefix("farpool::singles::Singles<").unwrap_or(name);
        A::are_plain() && KNOWN.iter().any(|known| name.starts_with(known)) && self.input.size_hint().1.is_some()
    }

    /// Pulls one batch of at most `room` items and appends the messages to send: at most one message of items, since the window
    /// has room for no more. An item that cannot be sent becomes an error in the inbox. If the input panics, the input
    /// counts as exhausted, and no `EndItems` is sent.
    pub(crate) fn feed(&mut self, room: u64, inbox: &Inbox, messages: &mut Vec<Body>) {
        if self.exhausted {
            return;
        }
        self.exhausted = true;
        let _pulling = pulling::begin(inbox);
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
            if let Err(error) = batch.push(&args, self.limit) {
                inbox.refuse(item, error);
                if batch.items() > 0 {
                    break;
                }
                batch = self.start_batch(item + 1, start + limit - self.pulled);
            }
        }
        self.pace.record_batch(self.pulled - start);
        inbox.set_pulled(self.pulled);
        self.send(batch, messages);
        self.exhausted = ended;
        if ended {
            messages.push(Body::EndItems(EndItems { job: self.job }));
        }
    }

    fn start_batch(&mut self, first: u64, items: u64) -> Batch {
        self.pace.start();
        Batch::new(first, items, self.typical_bytes())
    }

    /// Returns the size of an item, to choose the size of the next buffer.
    fn typical_bytes(&self) -> u64 {
        self.sent_bytes.checked_div(self.sent_items).unwrap_or(16)
    }

    fn send(&mut self, batch: Batch, messages: &mut Vec<Body>) {
        if batch.items() > 0 {
            self.sent_items += batch.items();
            self.sent_bytes += batch.bytes();
            messages.push(Body::Items(batch.into_message(self.job)));
        }
    }
}

/// Encodes the only item of a job, as messages that open and end its input.
pub(crate) fn feed_one<A: Args>(args: &A, job: u64, limit: ItemLimit, messages: &mut Vec<Body>) -> Result<(), Error> {
    let items = batch::only_item(args, job, limit).map_err(|error| error.of_item(0))?;
    messages.push(Body::Items(items));
    messages.push(Body::EndItems(EndItems { job }));
    Ok(())
}
