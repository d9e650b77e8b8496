//! Pulls items from an input, encodes them into messages, and keeps the exceptions that this raises.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{EndItems, Items};
use farpool_session::{Error, ErrorKind, Inbox, ItemLimit, Room};
use pyo3::prelude::*;
use pyo3::types::PyIterator;

use crate::background;
use crate::codec::Encoder;
use crate::errors;

/// Large enough to make the overhead of a batch small, and small enough to stay in the cache until it is read.
const FULL_BYTES: usize = 256 << 10;
const MOST_ITEMS: u64 = 16_384;
const GROWTH: u64 = 8;
/// Batches that take less time may be larger.
const QUICK: Duration = Duration::from_micros(500);
/// Batches that take longer get smaller, so that a pulled item does not wait long for the next one.
const SLOW: Duration = Duration::from_millis(2);

/// The input of a job.
pub(crate) struct Feeder {
    input: Py<PyIterator>,
    encoder: Encoder,
    exhausted: bool,
    pulled: u64,
    chunksize: u64,
    limit: ItemLimit,
    sent_bytes: u64,
    /// How many items the next batch may have. The first batch has one item, so that a worker starts at once.
    batch: u64,
    /// Whether it runs on its own thread, where no caller sees what the input raises.
    on_its_own: bool,
}

/// The exceptions of a job that were raised in this process.
#[derive(Default)]
pub(crate) struct Faults {
    /// Those of items that could not be encoded.
    refused: Mutex<BTreeMap<u64, PyErr>>,
    /// The first item that was lost through an exception of the input, and that exception until it is raised.
    input: Mutex<Option<(u64, Option<PyErr>)>>,
}

impl Faults {
    /// Returns the exception of this item.
    pub(crate) fn refused(&self, item: u64) -> Option<PyErr> {
        lock(&self.refused).remove(&item)
    }

    /// Returns the exception of the input, once, and the first item that was lost through it.
    pub(crate) fn take_input(&self) -> Option<(u64, PyErr)> {
        let mut input = lock(&self.input);
        let (item, error) = input.as_mut()?;
        Some((*item, error.take()?))
    }

    /// Returns the first item that was lost through an exception of the input.
    pub(crate) fn cut(&self) -> Option<u64> {
        lock(&self.input).as_ref().map(|(item, _)| *item)
    }
}

// Held only briefly, and never while Python code runs.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feeder {
    pub(crate) fn new(input: Bound<'_, PyIterator>, encoder: Encoder, chunksize: u64, limit: ItemLimit) -> Self {
        Self {
            input: input.unbind(),
            encoder,
            exhausted: false,
            pulled: 0,
            chunksize,
            limit,
            sent_bytes: 0,
            batch: 1,
            on_its_own: false,
        }
    }

    /// Prepares it to run on its own thread.
    pub(crate) fn on_its_own(self) -> Self {
        Self { on_its_own: true, ..self }
    }

    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted
    }

    pub(crate) fn pulled(&self) -> u64 {
        self.pulled
    }

    /// Returns the room that the next message needs. `held`: bytes of results that were not taken yet.
    pub(crate) fn room(&self, held: u64) -> Room {
        // If a chunk is larger than the unfinished items, none may be complete, so none could finish and make room.
        let finished = (self.pulled + 1).saturating_sub(self.chunksize);
        Room { sent_bytes: self.sent_bytes.saturating_add(held), finished }
    }

    /// Pulls a batch of at most `most` items, and appends its messages: at most one has items.
    ///
    /// # Errors
    /// If the input or the pickling of an item raises something other than an `Exception`, such as `KeyboardInterrupt`, on the
    /// caller's thread.
    pub(crate) fn feed(
        &mut self,
        py: Python<'_>,
        most: u64,
        inbox: &Inbox,
        faults: &Faults,
        messages: &mut Vec<Body>,
    ) -> PyResult<()> {
        let began = Instant::now();
        let most = most.min(self.batch);
        let (start, mut first) = (self.pulled, self.pulled);
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        let input = self.input.bind(py);
        while self.pulled - start < most && data.len() < FULL_BYTES {
            let value = match background::next(input) {
                Some(Ok(value)) => value,
                Some(Err(error)) if self.on_its_own || !errors::interrupts(py, &error) => {
                    // The other items of the chunk are lost too, as in multiprocessing.
                    let first_lost = self.pulled - self.pulled.checked_rem(self.chunksize).unwrap_or(0);
                    *lock(&faults.input) = Some((first_lost, Some(error)));
                    self.exhausted = true;
                    break;
                }
                Some(Err(error)) => return Err(error),
                None => {
                    self.exhausted = true;
                    break;
                }
            };
            let (item, before) = (self.pulled, data.len());
            self.pulled += 1;
            let encoded = self.encoder.encode(&value, &mut data).map_err(Refused::Raised);
            let encoded = encoded.and_then(|()| self.limit.check(data.len() - before).map_err(Refused::Failed));
            match encoded {
                // A batch is at most full plus one item, whose size is limited to 2 GiB.
                Ok(()) => ends.extend_from_slice(&(data.len() as u32).to_le_bytes()),
                Err(Refused::Raised(error)) if !self.on_its_own && errors::interrupts(py, &error) => return Err(error),
                Err(refused) => {
                    data.truncate(before);
                    refuse(refused, item, inbox, faults);
                    if !ends.is_empty() {
                        break;
                    }
                    first = item + 1;
                }
            }
        }
        inbox.set_pulled(self.pulled);
        self.adapt(self.pulled - start, began.elapsed());
        if !ends.is_empty() {
            self.sent_bytes += (data.len() + ends.len()) as u64;
            messages.push(Body::Items(Items { job: inbox.job(), first, data: data.into(), ends: ends.into() }));
        }
        if self.exhausted {
            messages.push(Body::EndItems(EndItems { job: inbox.job() }));
        }
        Ok(())
    }

    fn adapt(&mut self, items: u64, took: Duration) {
        if took >= SLOW {
            self.batch = (self.batch / GROWTH).max(1);
        } else if took <= QUICK && items >= self.batch {
            self.batch = (self.batch * GROWTH).min(MOST_ITEMS);
        }
    }
}

/// Why an item is not sent.
enum Refused {
    Raised(PyErr),
    Failed(Error),
}

fn refuse(refused: Refused, item: u64, inbox: &Inbox, faults: &Faults) {
    let error = match refused {
        Refused::Failed(error) => error,
        Refused::Raised(error) => {
            lock(&faults.refused).insert(item, error);
            Error::new(ErrorKind::Codec, "the item could not be pickled")
        }
    };
    inbox.refuse(item, error);
}
