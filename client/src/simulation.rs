//! A client's session with a cluster, and its calls for detached jobs, driven by hand: for simulations, which run whole clusters
//! on one thread, in a time of their own. Nothing of this is for users.
//!
//! What a [`Pool`](crate::Pool) does on top, encoding and decoding, is not part of it: items and results are bytes.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{CancelJob, ClosePool, EndItems, Items, OpenJob, OpenPool};

pub use crate::cluster::{Caller, Connect, Connection, DetachedOutcomes, Handing, Keeper, Next};
use crate::cluster::{Conversation, converse};
use crate::error::{Error, ErrorKind};
use crate::inbox::{Inbox, Interest, News, Room};
use crate::results::Results;

/// A client with its pool.
#[derive(Clone)]
pub struct Client {
    conversation: Conversation,
}

/// A job of a client's.
pub struct Job {
    conversation: Conversation,
    inbox: Arc<Inbox>,
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
}

impl Client {
    /// A client that opens this pool, what waits until it is open, and its conversation, which is to be driven to its end.
    /// Chance is made from the pool's id.
    pub fn open<C: Connect>(
        connect: C,
        pool: OpenPool,
        reconnect_timeout: Duration,
    ) -> (Self, impl Future<Output = Result<(), Error>>, impl Future<Output = Result<(), Error>>) {
        let (conversation, told, talk) = converse(connect, pool, reconnect_timeout);
        let opened = async { told.await.unwrap_or_else(|_| Err(Error::protocol("the conversation has ended"))) };
        (Self { conversation }, opened, talk)
    }

    /// Opens a job, of a number that is new.
    ///
    /// # Errors
    /// If the pool was closed or has failed.
    pub fn start(&self, job: OpenJob) -> Result<Job, Error> {
        let inbox = Inbox::new(job.job, "job", &job.label, Interest::Outcomes);
        let inbox = Arc::new(inbox.in_session(self.conversation.window(), Some(self.conversation.gate())));
        let chunksize = job.chunksize;
        self.conversation.submit(&inbox, Body::OpenJob(Box::new(job)))?;
        let conversation = self.conversation.clone();
        Ok(Job { conversation, inbox, chunksize, sent_bytes: 0, news: VecDeque::new() })
    }

    /// Takes no further jobs; `now`: drops those that there are.
    pub fn close(&self, now: bool) {
        self.conversation.say(Body::ClosePool(ClosePool { now }));
    }

    /// Goes away without a word.
    pub fn abandon(&self) {
        self.conversation.abandon();
    }

    /// Jobs of which something is kept for another coordinator, and messages of items of theirs.
    pub fn kept(&self) -> (usize, usize) {
        self.conversation.kept()
    }

    /// Outcomes that came for items that had theirs, and were dropped.
    pub fn repeated(&self) -> u64 {
        self.conversation.repeated()
    }
}

impl Job {
    /// Whether the window has room for a further message of items. When it has again, [`Job::next`] wakes.
    pub fn has_room(&self) -> bool {
        let finished = (self.inbox.pulled() + 1).saturating_sub(self.chunksize);
        self.inbox.has_room(Room { sent_bytes: self.sent_bytes, finished })
    }

    /// An item that cannot be sent: it fails here, and leaves a gap.
    pub fn refuse(&mut self) {
        let item = self.inbox.pulled();
        self.inbox.set_pulled(item + 1);
        self.inbox.refuse(item, Error::new(ErrorKind::Codec, "it cannot be encoded"));
    }

    /// Sends these items, behind the ones before. There must be room.
    pub fn send(&mut self, items: &[Bytes]) {
        let first = self.inbox.pulled();
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for item in items {
            data.extend_from_slice(item);
            ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
        }
        self.sent_bytes += (data.len() + ends.len()) as u64;
        self.inbox.set_pulled(first + items.len() as u64);
        let job = self.inbox.job();
        self.conversation.say(Body::Items(Items { job, first, data: data.into(), ends: ends.into() }));
    }

    /// No more items will come.
    pub fn end_input(&self) {
        self.conversation.say(Body::EndItems(EndItems { job: self.inbox.job() }));
    }

    /// Cancels it.
    pub fn cancel(&self) {
        self.conversation.say(Body::CancelJob(CancelJob { job: self.inbox.job() }));
    }

    /// The next outcomes; none if there is only more room. `None`: the job has ended, in this error or in none.
    pub async fn next(&mut self) -> Option<Vec<Outcome>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// How the job has ended, if it did not finish.
    pub fn error(&self) -> Option<Error> {
        self.inbox.end_error()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Outcome>>> {
        self.inbox.set_waker(context.waker());
        if !self.inbox.has_news() {
            return Poll::Pending;
        }
        let ended = self.inbox.take(&mut self.news);
        let outcomes: Vec<Outcome> = self.news.drain(..).flat_map(|news| outcomes(news, &self.inbox)).collect();
        if ended && outcomes.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(outcomes)) }
    }
}

fn outcomes(news: News, inbox: &Inbox) -> Vec<Outcome> {
    match news {
        News::Failed { first, count, error } => {
            (first..first + count).map(|item| Outcome { item, result: Err(error.clone()) }).collect()
        }
        News::Done { first, data, ends, held: _ } => {
            let lies = |error| vec![Outcome { item: first, result: Err(error) }];
            let mut results = match Results::new(first, data, ends, inbox.pulled()) {
                Ok(results) => results,
                Err(error) => return lies(error),
            };
            let mut outcomes = Vec::new();
            while let Some(next) = results.next() {
                match next {
                    Ok((item, bytes)) => outcomes.push(Outcome { item, result: Ok(Bytes::copy_from_slice(bytes)) }),
                    Err(error) => return lies(error),
                }
            }
            outcomes
        }
    }
}
