//! Sorts the results of a job into the order of its items.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use farpool_session::{Delivery, Inbox, Results};

use crate::args::Data;
use crate::codec;
use crate::error::{Error, ErrorKind};

/// All results of a job, decoded as they come, and the failure with the lowest index.
pub(crate) struct Collector<R> {
    values: Vec<R>,
    /// Results after the first missing one.
    ahead: VecDeque<Option<R>>,
    failed: Option<(u64, Error)>,
    outcomes: u64,
}

impl<R: Data> Collector<R> {
    pub(crate) fn new(expected: usize) -> Self {
        // An iterator's length is only a hint, so the allocation is bounded.
        let values = Vec::with_capacity(expected.min(1 << 20));
        Self { values, ahead: VecDeque::new(), failed: None, outcomes: 0 }
    }

    /// Returns how many items have an outcome.
    pub(crate) fn outcomes(&self) -> u64 {
        self.outcomes
    }

    /// Adds outcomes. An error is about the whole job: the session broke its contract.
    pub(crate) fn accept(&mut self, delivery: Delivery, inbox: &Inbox) -> Result<(), Error> {
        match delivery {
            Delivery::Done { first, data, ends, attempts: _, held: _until_decoded } => {
                let results = Results::new(first, data, ends, inbox.pulled())?;
                self.accept_results(results, inbox)
            }
            Delivery::Failed { first, count, error, held: _ } => {
                farpool_session::check_items_exist(first, count, inbox.pulled())?;
                self.outcomes += count;
                self.fail(first, || inbox.add_context(error.of_item(first)));
                Ok(())
            }
        }
    }

    /// Returns the results of `items` items, in order.
    pub(crate) fn finish(self, items: u64) -> Result<Vec<R>, Error> {
        match self.failed {
            Some((_, error)) => Err(error),
            None if self.values.len() as u64 == items && self.ahead.is_empty() => Ok(self.values),
            None => Err(Error::protocol("the job ended although outcomes of items are missing")),
        }
    }

    fn accept_results(&mut self, mut results: Results, inbox: &Inbox) -> Result<(), Error> {
        while let Some(next) = results.next() {
            let (item, bytes) = next?;
            self.outcomes += 1;
            match codec::decode(bytes) {
                Ok(value) if self.failed.is_none() => self.put(item, value)?,
                // The job has already failed: only an error with a lower index can still change its outcome.
                Ok(_) => {}
                Err(error) => {
                    self.fail(item, || inbox.add_context(Error::new(ErrorKind::Codec, error.0).of_item(item)));
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn put(&mut self, item: u64, value: R) -> Result<(), Error> {
        match item.checked_sub(self.values.len() as u64) {
            Some(0) => {
                self.values.push(value);
                if !self.ahead.is_empty() {
                    self.catch_up();
                }
                Ok(())
            }
            Some(distance) => self.put_ahead(distance as usize, value),
            None => Err(delivered_twice(item)),
        }
    }

    fn catch_up(&mut self) {
        // The slot of the value that was just pushed; empty so far.
        self.ahead.pop_front();
        while let Some(value) = self.ahead.front_mut().and_then(Option::take) {
            self.values.push(value);
            self.ahead.pop_front();
        }
    }

    fn put_ahead(&mut self, distance: usize, value: R) -> Result<(), Error> {
        if distance >= self.ahead.len() {
            self.ahead.resize_with(distance, || None);
            self.ahead.push_back(Some(value));
            return Ok(());
        }
        match self.ahead[distance].replace(value) {
            None => Ok(()),
            Some(_) => Err(delivered_twice(self.values.len() as u64 + distance as u64)),
        }
    }

    #[cold]
    fn fail(&mut self, item: u64, error: impl FnOnce() -> Error) {
        if self.failed.as_ref().is_none_or(|(lowest, _)| item < *lowest) {
            self.failed = Some((item, error()));
            self.values = Vec::new();
            self.ahead = VecDeque::new();
        }
    }
}

#[cold]
fn delivered_twice(item: u64) -> Error {
    Error::protocol(format_args!("the outcome of item {item} was delivered twice"))
}
