use std::collections::{BTreeMap, VecDeque};

use farpool_session::{Delivery, Inbox, Results};

use crate::args::Data;
use crate::codec;
use crate::error::{Error, ErrorKind};

/// The order in which outcomes are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Input,
    Completion,
}

/// Outcomes that have arrived but were not taken yet. Each is decoded when it is taken.
pub(super) struct Arrivals {
    order: Order,
    /// In input order: the index of the next item.
    next: u64,
    current: Option<Results>,
    /// In input order: arrivals beyond `next`, by their first item.
    ahead: BTreeMap<u64, Arrival>,
    /// In order of completion: arrivals after `current`.
    queue: VecDeque<Arrival>,
    bytes: usize,
    /// Number of items whose outcomes are here.
    items: u64,
    /// Average bytes per result in the latest run of results.
    recent: u64,
    /// How many attempts the item of the last outcome took.
    attempts: u32,
}

enum Arrival {
    Done(Results),
    /// The first item, the number of items, and their error.
    Failed(u64, u64, Error),
}

impl Arrivals {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            next: 0,
            current: None,
            ahead: BTreeMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            items: 0,
            recent: 0,
            attempts: 0,
        }
    }

    /// Returns the bytes of the results that are here.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Returns the recent size of a result in bytes; 0 if unknown.
    pub(super) fn recent_bytes(&self) -> u64 {
        self.recent
    }

    /// Estimates the bytes of results that have not arrived yet, for `ahead` items. The first `running` items are not
    /// counted, so that large results do not keep slots idle.
    pub(super) fn expected_bytes(&self, ahead: u64, running: u64) -> u64 {
        ahead.saturating_sub(self.items).saturating_sub(running).saturating_mul(self.recent)
    }

    /// Returns how many attempts the item of the last outcome took; 0: there was no outcome, or the item was never sent.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Adds arrivals. An error is about the whole job: the session broke its contract.
    pub(super) fn add(&mut self, delivery: Delivery, inbox: &Inbox) -> Result<(), Error> {
        let (first, arrival) = match delivery {
            Delivery::Done { first, data, ends, attempts, held } => {
                let results = Results::new(first, data, ends, inbox.pulled())?.with_attempts(attempts).holding(held);
                self.bytes += results.memory();
                self.items += results.items();
                self.recent = (results.memory() as u64).checked_div(results.items()).unwrap_or(0);
                (first, Arrival::Done(results))
            }
            Delivery::Failed { first, count, error, held: _ } => {
                farpool_session::check_items_exist(first, count, inbox.pulled())?;
                self.items += count;
                (first, Arrival::Failed(first, count, error.into()))
            }
        };
        match self.order {
            Order::Completion => self.queue.push_back(arrival),
            Order::Input => {
                if first < self.next || self.ahead.insert(first, arrival).is_some() {
                    return Err(Error::protocol(format_args!("the outcome of item {first} was delivered twice")));
                }
            }
        }
        Ok(())
    }

    /// Returns the next outcome. The outer error is about the whole job.
    pub(super) fn pop<R: Data>(&mut self, inbox: &Inbox) -> Result<Option<Result<R, Error>>, Error> {
        loop {
            if let Some(results) = &mut self.current {
                self.attempts = results.attempts();
                if let Some(next) = results.next() {
                    let (item, bytes) = next?;
                    self.next = item + 1;
                    self.items -= 1;
                    return Ok(Some(codec::decode(bytes).map_err(|error| undecodable(item, error.0, inbox))));
                }
                self.bytes -= results.memory();
                self.current = None;
            }
            match self.next_arrival() {
                None => return Ok(None),
                Some(Arrival::Done(results)) => self.current = Some(results),
                Some(Arrival::Failed(item, count, error)) => {
                    self.next = item + 1;
                    self.items -= 1;
                    self.attempts = error.attempts();
                    if count > 1 {
                        self.put_back(item + 1, Arrival::Failed(item + 1, count - 1, error.clone()));
                    }
                    return Ok(Some(Err(inbox.add_context(error.of_item(item)))));
                }
            }
        }
    }

    /// Puts back the rest of the next arrival, from this item on.
    fn put_back(&mut self, first: u64, rest: Arrival) {
        match self.order {
            Order::Completion => self.queue.push_front(rest),
            Order::Input => drop(self.ahead.insert(first, rest)),
        }
    }

    fn next_arrival(&mut self) -> Option<Arrival> {
        match self.order {
            Order::Completion => self.queue.pop_front(),
            Order::Input => {
                let first = self.ahead.first_entry()?;
                (*first.key() == self.next).then(|| first.remove())
            }
        }
    }
}

#[cold]
fn undecodable(item: u64, message: String, inbox: &Inbox) -> Error {
    inbox.add_context(Error::new(ErrorKind::Codec, message).of_item(item))
}
