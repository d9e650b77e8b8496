use std::sync::Arc;

use farpool_net::{Incoming, outgoing};
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Attach, AwaitingItems, ClientEvent, ClientMessage, DetachedJob};
use tonic::Status;

use super::super::super::borrower::Borrower;
use super::super::super::connect::Connect;
use super::super::attempts::{Attempts, Trouble};
use super::super::inbox::{Arrival, End, Inbox};
use super::super::keeper::Keeper;
use super::super::refusal::Subject;
use crate::error::Error;

/// What a message of results may have: the largest result that any pool may allow, and others of its chunk.
const MESSAGE_LIMIT: u64 = (2 << 30) + (64 << 20);

/// Follows a job through lost connections.
pub(super) struct Follower<C> {
    connect: C,
    subject: Subject,
    attempts: Attempts,
    wait: bool,
    /// The first item whose outcome has not come.
    next: u64,
    /// What the coordinator said last of the job.
    job: Option<DetachedJob>,
    /// The slot of the item whose task started this process is lent while somebody waits for outcomes.
    borrower: Option<Arc<Borrower>>,
}

impl<C: Connect<Connection: Keeper>> Follower<C> {
    pub(super) fn new(connect: C, subject: Subject, attempts: Attempts, wait: bool) -> Self {
        // Who does not wait needs no slot.
        let borrower = if wait { Borrower::claim(|_| ()) } else { None };
        Self { connect, subject, attempts, wait, next: 0, job: None, borrower }
    }

    /// Fills the inbox; returns how the job has ended.
    pub(super) async fn run(mut self, inbox: &Inbox) -> End {
        loop {
            let trouble = match self.attempt(inbox).await {
                Ok(end) => return end,
                Err(trouble) => trouble,
            };
            if let Err(error) = self.attempts.again(trouble, &self.subject).await {
                return End::Broken(error);
            }
        }
    }

    async fn attempt(&mut self, inbox: &Inbox) -> Result<End, Trouble> {
        let (outgoing, frames) = outgoing(0, Arc::default());
        let (name, id) = self.subject.job().parts();
        let ticket = self.borrower.as_ref().map(|borrower| borrower.ticket());
        let attach = Attach { name, first: self.next, wait: self.wait, id, ticket };
        outgoing.for_one_connection();
        outgoing.push(ClientMessage { body: Some(Body::Attach(Box::new(attach))) });
        let call = async { self.connect.connect().await?.attach(frames).await };
        let events = self.attempts.answer(call).await?;
        let mut incoming = outgoing.incoming::<ClientEvent>(events, MESSAGE_LIMIT);
        let (mut answered, mut awaits) = (false, false);
        loop {
            let heard = async {
                inbox.room().await;
                self.hear(&mut incoming, answered).await
            };
            let heard = tokio::select! {
                biased;
                waits = inbox.waits_changed(awaits), if answered && self.wait && self.borrower.is_some() => {
                    awaits = waits;
                    outgoing.push(ClientMessage { body: Some(Body::AwaitingItems(AwaitingItems { waits })) });
                    continue;
                }
                heard = heard => heard?,
            };
            let Some(messages) = heard else {
                return match self.wait || !answered {
                    true => Err(Trouble::Lost(Status::unavailable("it ended the call before the job had ended"))),
                    false => Ok(End::Running),
                };
            };
            for event in messages.into_iter().filter_map(|message| message.body) {
                if !answered && !matches!(event, Event::DetachedJob(_)) {
                    return Err(self.nonsense("did not start with the job's description"));
                }
                answered = true;
                if let Some(end) = self.take_in(event, inbox)? {
                    return Ok(end);
                }
            }
        }
    }

    /// The messages of the next frames; those of a job that goes on may be long in coming.
    async fn hear(
        &self,
        incoming: &mut Incoming<ClientEvent>,
        answered: bool,
    ) -> Result<Option<Vec<ClientEvent>>, Trouble> {
        let heard = match self.wait && answered {
            true => incoming.next().await.map_err(Trouble::Lost),
            false => self.attempts.answer(incoming.next()).await,
        };
        match heard {
            Err(Trouble::Lost(status)) if incoming.is_garbled() => {
                Err(self.nonsense(&format!("sent an invalid frame: {}", status.message())))
            }
            heard => heard,
        }
    }

    fn take_in(&mut self, event: Event, inbox: &Inbox) -> Result<Option<End>, Trouble> {
        match event {
            Event::DetachedJob(job) => {
                self.attempts.note_answer();
                self.describe(*job, inbox)?;
            }
            Event::ItemsDone(done) if done.ends.is_empty() => {}
            Event::ItemsDone(done) => {
                self.advance(done.first, (done.ends.len() / 4) as u64)?;
                inbox.put(Arrival::Done(done));
            }
            Event::ItemsFailed(failed) if failed.count == 0 => {}
            Event::ItemsFailed(failed) => {
                self.advance(failed.first, failed.count)?;
                let error = Error::from_failure(failed.failure.unwrap_or_default());
                inbox.put(Arrival::Failed(failed.first, failed.count, error));
            }
            Event::JobEnded(ended) => return Ok(Some(if ended.cancelled { End::Cancelled } else { End::Finished })),
            Event::PoolFailed(failed) => {
                let error = Error::from_failure(failed.failure.unwrap_or_default());
                return Ok(Some(End::Failed(self.subject.tell(error))));
            }
            // Nothing that this version knows.
            _ => {}
        }
        Ok(None)
    }

    /// What the coordinator says of the job, which is to be the one that it was.
    fn describe(&mut self, job: DetachedJob, inbox: &Inbox) -> Result<(), Trouble> {
        if let Some(before) = &self.job
            && before.detached_ms != 0
            && before.detached_ms != job.detached_ms
        {
            let error = Error::invalid("the job was discarded in the meantime, and another one now has its name");
            return Err(Trouble::Final(self.subject.tell(error)));
        }
        inbox.describe(&job);
        self.job = Some(job);
        Ok(())
    }

    /// These outcomes have come, in the order of the items.
    fn advance(&mut self, first: u64, count: u64) -> Result<(), Trouble> {
        let items = self.job.as_ref().map_or(0, |job| job.items);
        match first.checked_add(count) {
            Some(end) if first >= self.next && end <= items => {
                self.next = end;
                self.attempts.note_progress();
                Ok(())
            }
            _ => Err(self.nonsense(&format!(
                "sent outcomes of items {first} and {count} from there on, where those from {} on of {items} were due",
                self.next
            ))),
        }
    }

    fn nonsense(&self, what: &str) -> Trouble {
        let error = Error::protocol(format_args!("the coordinator at {} {what}", self.subject.place().address));
        Trouble::Final(self.subject.tell(error))
    }
}
