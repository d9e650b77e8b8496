//! Short calls: what a detached job is like, and what is to become of it.

use std::sync::Arc;

use farpool_net::outgoing;
use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{
    Attach, CancelDetachedRequest, ClientEvent, ClientMessage, DetachedJob, DiscardDetachedRequest,
};
use tonic::{Code, Status};

use super::super::connect::is_final;
use super::attempts::{Attempts, Trouble};
use super::refusal::Subject;
use super::{Place, jobs, thread};
use crate::error::Error;

/// A description of a job has no payload.
const LARGEST_DESCRIPTION: u64 = 16 << 20;

/// What is known of the job. `again`: whether it is tried for long to reach the coordinator.
pub(crate) fn about(place: &Place, verb: &'static str, name: &str, again: bool) -> Result<DetachedJob, Error> {
    let subject = Subject::new(place, verb, name);
    thread::wait_for(async {
        let mut attempts = Attempts::new(place.patience);
        loop {
            let trouble = match look(&attempts, &subject).await {
                Ok(job) => return Ok(job),
                Err(Trouble::Lost(status)) if !again && !is_final(&status) => {
                    return Err(subject.unreachable(&status));
                }
                Err(trouble) => trouble,
            };
            attempts.again(trouble, &subject).await?;
        }
    })
}

/// Drops what has no outcome yet.
pub(crate) fn cancel(place: &Place, name: &str) -> Result<(), Error> {
    let subject = Subject::new(place, "cancel", name);
    thread::wait_for(async {
        let mut attempts = Attempts::new(place.patience);
        loop {
            let request = CancelDetachedRequest { name: name.to_owned() };
            let cancelled = attempts.answer(async { jobs(place.connect().await?).cancel(request).await }).await;
            match cancelled {
                Ok(_) => return Ok(()),
                Err(trouble) => attempts.again(trouble, &subject).await?,
            }
        }
    })
}

/// Drops all of it.
pub(crate) fn discard(place: &Place, name: &str) -> Result<(), Error> {
    let subject = Subject::new(place, "discard", name);
    thread::wait_for(async {
        let mut attempts = Attempts::new(place.patience);
        let mut asked = false;
        loop {
            let request = DiscardDetachedRequest { name: name.to_owned() };
            let before = asked;
            let discard = async {
                let channel = place.connect().await?;
                asked = true;
                jobs(channel).discard(request).await
            };
            match attempts.answer(discard).await {
                Ok(_) => return Ok(()),
                // The answer to an attempt before this one was lost.
                Err(Trouble::Lost(status)) if before && status.code() == Code::NotFound => return Ok(()),
                Err(trouble) => attempts.again(trouble, &subject).await?,
            }
        }
    })
}

async fn look(attempts: &Attempts, subject: &Subject) -> Result<DetachedJob, Trouble> {
    let (outgoing, frames) = outgoing(0, Arc::default());
    // None of its outcomes.
    let attach = Attach { name: subject.name().to_owned(), first: u64::MAX, wait: false };
    outgoing.for_one_connection();
    outgoing.push(ClientMessage { body: Some(Body::Attach(attach)) });
    let look = async {
        let events = jobs(subject.place().connect().await?).attach(frames).await?.into_inner();
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
    attempts.answer(look).await
}
