//! A job whose items and results are bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{EndItems, Items, OpenJob};

use crate::call::Call;
use crate::error::Error;
use crate::inbox::{Delivery, Inbox, Interest, Room};
use crate::results::Results;
use crate::session::Session;

/// A job; created by [`Session::job`](crate::Session::job). Dropped before it has ended, it is cancelled.
///
/// One thread or task serves both its input and its outcomes: it sends items as far as there is [room](Self::has_room), takes
/// outcomes, and waits when it can do neither.
pub struct Job {
    call: Call,
    /// How many items a chunk has, if the job sets that; otherwise 0.
    chunksize: u64,
    sent_bytes: u64,
    deliveries: VecDeque<Delivery>,
}

/// The outcome of an item.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its index.
    pub item: u64,
    /// Its result.
    pub result: Result<Bytes, Error>,
    /// How many attempts it took; 0 if it never left the client.
    pub attempts: u32,
}

impl Session {
    /// Opens a job whose items and results are bytes. It gets a new number.
    ///
    /// # Errors
    /// If the pool was closed or has failed, and in a fork of the process that has opened it.
    pub fn job(&self, open: OpenJob) -> Result<Job, Error> {
        let (chunksize, label) = (open.chunksize, open.label.clone());
        Job::begin(self.begin("job", &label, open, Interest::Outcomes)?, chunksize)
    }
}

impl Job {
    fn begin(mut call: Call, chunksize: u64) -> Result<Self, Error> {
        call.flush()?;
        Ok(Self { call, chunksize, sent_bytes: 0, deliveries: VecDeque::new() })
    }

    /// Returns the job's number in its pool.
    pub fn number(&self) -> u64 {
        self.call.inbox.job()
    }

    /// Returns whether there is room for another message of items. A wait ends when there is room again.
    pub fn has_room(&self) -> bool {
        let finished = (self.call.inbox.pulled() + 1).saturating_sub(self.chunksize);
        self.call.inbox.has_room(Room { sent_bytes: self.sent_bytes, finished })
    }

    /// Sends these items, after those sent before. There must be room, but a message may be larger than the room.
    ///
    /// # Errors
    /// If the pool has failed, or this is a fork of the process that has opened it.
    pub fn send<T: AsRef<[u8]>>(&mut self, items: &[T]) -> Result<(), Error> {
        let (first, job) = (self.call.inbox.pulled(), self.number());
        let (mut data, mut ends) = (Vec::new(), Vec::with_capacity(4 * items.len()));
        for item in items {
            data.extend_from_slice(item.as_ref());
            let end =
                u32::try_from(data.len()).map_err(|_| Error::invalid("items of more than 4 GiB in one message"))?;
            ends.extend_from_slice(&end.to_le_bytes());
        }
        self.sent_bytes += (data.len() + ends.len()) as u64;
        self.call.inbox.set_pulled(first + items.len() as u64);
        self.send_body(Body::Items(Items { job, first, data: data.into(), ends: ends.into() }))
    }

    /// Skips an item that cannot be sent: it fails here with this error, and later items keep their indices.
    pub fn refuse(&mut self, error: Error) {
        let item = self.call.inbox.pulled();
        self.call.inbox.set_pulled(item + 1);
        self.call.inbox.refuse(item, error);
    }

    /// Ends the input: no more items follow.
    ///
    /// # Errors
    /// If the pool has failed, or this is a fork of the process that has opened it.
    pub fn end_input(&mut self) -> Result<(), Error> {
        let job = self.number();
        self.send_body(Body::EndItems(EndItems { job }))
    }

    /// Stops retrying items that panic or count as failed. Items that already wait for another attempt still get it.
    pub fn stop_retries(&mut self) {
        self.call.stop_retries();
    }

    /// Cancels the job: items without an outcome get none.
    pub fn cancel(&mut self) {
        self.call.cancel();
    }

    /// Returns the outcomes that have arrived, each once, in order of arrival; `None` if all were returned and the job has
    /// ended.
    pub fn take(&mut self) -> Option<Vec<Outcome>> {
        let ended = self.call.inbox.take(&mut self.deliveries);
        let outcomes: Vec<Outcome> =
            self.deliveries.drain(..).flat_map(|delivery| outcomes(delivery, &self.call.inbox)).collect();
        if ended {
            self.call.settle();
        }
        if ended && outcomes.is_empty() { None } else { Some(outcomes) }
    }

    /// Blocks until there are outcomes or more room, the job has ended, or the deadline has passed. It may return early: check
    /// again.
    pub fn wait(&self, deadline: Option<Instant>) {
        self.call.session.wait(&self.call.inbox, deadline);
    }

    /// Waits for the next outcomes; returns none if there is only more room, and `None` if the job has ended.
    pub async fn next(&mut self) -> Option<Vec<Outcome>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Polls for the next outcomes. See [`next`](Self::next).
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Outcome>>> {
        self.call.inbox.set_waker(context.waker());
        if self.call.inbox.has_arrivals() { Poll::Ready(self.take()) } else { Poll::Pending }
    }

    /// Returns how the job ended, if it did not finish.
    pub fn error(&self) -> Option<Error> {
        self.call.inbox.end_error()
    }

    fn send_body(&mut self, body: Body) -> Result<(), Error> {
        self.call.messages.push(body);
        self.call.flush()
    }
}

fn outcomes(delivery: Delivery, inbox: &Inbox) -> Vec<Outcome> {
    match delivery {
        Delivery::Failed { first, count, error, held: _ } => {
            let attempts = error.attempts();
            let each = |item| Outcome { item, result: Err(error.clone()), attempts };
            (first..first.saturating_add(count)).map(each).collect()
        }
        Delivery::Done { first, data, ends, attempts, held: _ } => {
            let invalid = |error| vec![Outcome { item: first, result: Err(error), attempts: 0 }];
            let mut results = match Results::new(first, data, ends, inbox.pulled()) {
                Ok(results) => results.with_attempts(attempts),
                Err(error) => return invalid(error),
            };
            let (mut outcomes, attempts) = (Vec::new(), results.attempts());
            while let Some(next) = results.next() {
                match next {
                    Ok((item, bytes)) => {
                        outcomes.push(Outcome { item, result: Ok(Bytes::copy_from_slice(bytes)), attempts });
                    }
                    Err(error) => return invalid(error),
                }
            }
            outcomes
        }
    }
}
