//! Short calls about a detached job: describe, cancel and discard.

use std::sync::Arc;

use farpool_net::outgoing;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Attach, ClientEvent, ClientMessage, DetachedJob};
use tonic::{Code, Status};

use super::super::connect::{Connect, is_final};
use super::attempts::{Attempts, Trouble};
use super::keeper::Keeper;
use super::refusal::Subject;
use super::{Named, Place, thread};
use crate::error::Error;

/// A description of a job has no payload.
const LARGEST_DESCRIPTION: u64 = 16 << 20;

/// What is known of the job. `again`: whether it is tried for long to reach the coordinator.
pub fn about(place: &Place, verb: &'static str, job: &Named, again: bool) -> Result<DetachedJob, Error> {
    thread::wait_for(Call::new(place, verb, job).about(again))
}

/// Cancels the items without an outcome.
pub fn cancel(place: &Place, job: &Named) -> Result<(), Error> {
    thread::wait_for(Call::new(place, "cancel", job).cancel())
}

/// Discards the whole job.
pub fn discard(place: &Place, job: &Named) -> Result<(), Error> {
    thread::wait_for(Call::new(place, "discard", job).discard())
}

/// A call that is retried when its connection is lost.
pub(super) struct Call<C> {
    pub(super) connect: C,
    pub(super) subject: Subject,
    pub(super) attempts: Attempts,
}

impl Call<super::Grpc> {
    fn new(place: &Place, verb: &'static str, job: &Named) -> Self {
        Self { connect: place.way(), subject: Subject::new(place, verb, job), attempts: place.attempts() }
    }
}

impl<C: Connect<Connection: Keeper>> Call<C> {
    pub(super) async fn about(mut self, again: bool) -> Result<DetachedJob, Error> {
        loop {
            let trouble = match self.look().await {
                Ok(job) => return Ok(job),
                Err(Trouble::Lost(status)) if !again && !is_final(&status) => {
                    return Err(self.subject.unreachable(&status));
                }
                Err(trouble) => trouble,
            };
            self.attempts.again(trouble, &self.subject).await?;
        }
    }

    pub(super) async fn cancel(mut self) -> Result<(), Error> {
        loop {
            let cancel = async {
                let (name, id) = self.subject.job().parts();
                self.connect.connect().await?.cancel(name, id).await
            };
            match self.attempts.answer(cancel).await {
                Ok(()) => return Ok(()),
                Err(trouble) => self.attempts.again(trouble, &self.subject).await?,
            }
        }
    }

    pub(super) async fn discard(mut self) -> Result<(), Error> {
        let mut asked = false;
        loop {
            let before = asked;
            let discard = async {
                let mut connection = self.connect.connect().await?;
                asked = true;
                let (name, id) = self.subject.job().parts();
                connection.discard(name, id).await
            };
            match self.attempts.answer(discard).await {
                Ok(()) => return Ok(()),
                // An earlier attempt succeeded, but its answer was lost.
                Err(Trouble::Lost(status)) if before && status.code() == Code::NotFound => return Ok(()),
                Err(trouble) => self.attempts.again(trouble, &self.subject).await?,
            }
        }
    }

    async fn look(&self) -> Result<DetachedJob, Trouble> {
        let (outgoing, frames) = outgoing(0, Arc::default());
        // None of its outcomes.
        let (name, id) = self.subject.job().parts();
        let attach = Attach { name, first: u64::MAX, wait: false, id, ticket: None };
        outgoing.for_one_connection();
        outgoing.push(ClientMessage { body: Some(Body::Attach(Box::new(attach))) });
        let look = async {
            let events = self.connect.connect().await?.attach(frames).await?;
            let mut incoming = outgoing.incoming::<ClientEvent>(events, LARGEST_DESCRIPTION);
            loop {
                let Some(messages) = incoming.next().await? else {
                    return Err(Status::unavailable("it ended the call without an answer"));
                };
                let job = messages.into_iter().find_map(|message| match message.body {
                    Some(Event::DetachedJob(job)) => Some(*job),
                    _ => None,
                });
                if let Some(job) = job {
                    return Ok(job);
                }
            }
        };
        self.attempts.answer(look).await
    }
}
