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
use crate::inbox::{Inbox, Interest, News, Room};
use crate::results::Results;
use crate::session::Session;

/// A job; created by [`Session::job`](crate::Session::job). Dropped before it has ended, it is cancelled.
///
/// Its input and its outcomes are worked on by one thread or task, which sends items as far as there is [room](Self::has_room),
/// takes outcomes, and waits when there is neither.
pub struct Job {
    call: Call,
    /// Items that run together, one after another; 0: that is not asked for.
    chunksize: u64,
    sent_bytes: u64,
    news: VecDeque<News>,
}

/// What has become of an item.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its index.
    pub item: u64,
    /// Its result.
    pub result: Result<Bytes, Error>,
    /// How many attempts it took; 0: it never left the client.
    pub attempts: u32,
}

impl Session {
    /// Opens a job whose items and results are bytes. It gets a number of its own.
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
        Ok(Self { call, chunksize, sent_bytes: 0, news: VecDeque::new() })
    }

    /// The job's number in its pool.
    pub fn number(&self) -> u64 {
        self.call.inbox.job()
    }

    /// Whether there is room for a further message of items. When there is again, waiting ends.
    pub fn has_room(&self) -> bool {
        let finished = (self.call.inbox.pulled() + 1).saturating_sub(self.chunksize);
        self.call.inbox.has_room(Room { sent_bytes: self.sent_bytes, finished })
    }

    /// Sends these items, behind those before. There must be room; a message may be larger than that.
    ///
    /// # Errors
    /// If the job cannot get them: the pool has failed, or this is a fork of the process that has opened it.
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
        self.say(Body::Items(Items { job, first, data: data.into(), ends: ends.into() }))
    }

    /// An item that cannot be sent: it fails here with this error, and those behind it keep their indices.
    pub fn refuse(&mut self, error: Error) {
        let item = self.call.inbox.pulled();
        self.call.inbox.set_pulled(item + 1);
        self.call.inbox.refuse(item, error);
    }

    /// No more items will come.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn end_input(&mut self) -> Result<(), Error> {
        let job = self.number();
        self.say(Body::EndItems(EndItems { job }))
    }

    /// Stops retries of items that panic or count as failed from now on. Items that already wait for another attempt still get it.
    pub fn stop_retries(&mut self) {
        self.call.stop_retries();
    }

    /// Ends the job: items without an outcome get none.
    pub fn cancel(&mut self) {
        self.call.cancel();
    }

    /// The outcomes that are there, each once, in the order in which they came; `None`: all were taken, and the job has ended.
    pub fn take(&mut self) -> Option<Vec<Outcome>> {
        let ended = self.call.inbox.take(&mut self.news);
        let outcomes: Vec<Outcome> = self.news.drain(..).flat_map(|news| outcomes(news, &self.call.inbox)).collect();
        if ended {
            self.call.settle();
        }
        if ended && outcomes.is_empty() { None } else { Some(outcomes) }
    }

    /// Blocks until there are outcomes, or more room, or the job has ended, or this time has come. It may return early: look again
    /// what there is.
    pub fn wait(&self, deadline: Option<Instant>) {
        self.call.session.wait(&self.call.inbox, deadline);
    }

    /// Waits for the next outcomes; none if there is only more room. `None`: the job has ended.
    pub async fn next(&mut self) -> Option<Vec<Outcome>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Self::next), for a task.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Outcome>>> {
        self.call.inbox.set_waker(context.waker());
        if self.call.inbox.has_news() { Poll::Ready(self.take()) } else { Poll::Pending }
    }

    /// How the job has ended, if it did not finish.
    pub fn error(&self) -> Option<Error> {
        self.call.inbox.end_error()
    }

    fn say(&mut self, body: Body) -> Result<(), Error> {
        self.call.messages.push(body);
        self.call.flush()
    }
}

fn outcomes(news: News, inbox: &Inbox) -> Vec<Outcome> {
    match news {
        News::Failed { first, count, error } => {
            let attempts = error.attempts();
            let each = |item| Outcome { item, result: Err(error.clone()), attempts };
            (first..first.saturating_add(count)).map(each).collect()
        }
        News::Done { first, data, ends, attempts, held: _ } => {
            let lies = |error| vec![Outcome { item: first, result: Err(error), attempts: 0 }];
            let mut results = match Results::new(first, data, ends, inbox.pulled()) {
                Ok(results) => results.tried(attempts),
                Err(error) => return lies(error),
            };
            let (mut outcomes, attempts) = (Vec::new(), results.attempts());
            while let Some(next) = results.next() {
                match next {
                    Ok((item, bytes)) => {
                        outcomes.push(Outcome { item, result: Ok(Bytes::copy_from_slice(bytes)), attempts });
                    }
                    Err(error) => return lies(error),
                }
            }
            outcomes
        }
    }
}
