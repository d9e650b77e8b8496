//! Sends a whole job to the coordinator, and resumes after lost connections.

mod sender;

use std::sync::Arc;

use bytes::Bytes;
use farpool_net::Secret;
use farpool_proto::v1::{Detach, Items};

use super::super::connect::Connect;
use super::attempts::Attempts;
use super::keeper::Keeper;
use super::outbox::Outbox;
use super::refusal::Subject;
use super::{Ground, Named, thread};
use crate::cluster::executable::Executable;
use crate::counted::Counted;
use crate::error::Error;
use crate::fork::{self, Owned};
use sender::Sender;

/// A job that is being detached. If it is dropped before it is [finished](Sending::finish), the coordinator keeps nothing.
pub struct Sending {
    job: Named,
    outbox: Owned<Arc<Outbox>>,
}

impl Sending {
    /// Begins, with a new secret for the job; blocks until the coordinator has accepted it.
    pub fn start(ground: &Ground, detach: Detach) -> Result<Self, Error> {
        let (place, secret) = (&ground.place, Secret::random());
        let job = Named { name: detach.name.as_str().into(), id: Bytes::copy_from_slice(&secret.id()) };
        let detach = Detach { secret: secret.to_bytes(), ..detach };
        let subject = Subject::new(place, "detach", &job);
        let (outbox, send) = over(place.way(), subject, place.attempts(), detach, ground.program.clone());
        let refused = Arc::clone(&outbox);
        thread::start(send, move |error| refused.end(Err(error)))?;
        // From here on, dropping this ends the thread.
        let sending = Self { job, outbox: Owned::new(outbox) };
        sending.outbox.wait_until_taken()?;
        Ok(sending)
    }

    /// Sends items; blocks while too many are in flight.
    pub fn send(&self, items: Items) -> Result<(), Error> {
        fork::check_detached(self.outbox.owner())?;
        self.outbox.put(items)
    }

    /// Blocks until the whole job is durable. Returns its name and id.
    pub fn finish(self) -> Result<Named, Error> {
        fork::check_detached(self.outbox.owner())?;
        self.outbox.finish()?;
        Ok(self.job.clone())
    }

    /// Returns how many items are durable.
    pub fn durable(&self) -> Arc<impl Counted + use<>> {
        Arc::clone(&*self.outbox)
    }
}

/// What is to be sent, over any way to the coordinator; what this returns beside is to be driven to its end.
pub(super) fn over<C: Connect<Connection: Keeper>>(
    connect: C,
    subject: Subject,
    attempts: Attempts,
    detach: Detach,
    program: Option<Executable>,
) -> (Arc<Outbox>, impl Future<Output = ()> + use<C>) {
    let outbox = Arc::new(Outbox::default());
    let own = Arc::clone(&outbox);
    let send = async move {
        let ended = Sender::new(connect, subject, attempts, &own, detach, program).run().await;
        own.end(ended);
    };
    (outbox, send)
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.outbox.owner().is_here() && !self.outbox.is_over() {
            self.outbox.abandon();
        }
    }
}
