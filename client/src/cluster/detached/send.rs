//! Giving a whole job to the coordinator, through lost connections.

mod sender;

use std::sync::Arc;

use farpool_proto::v1::{Detach, Items};

use super::outbox::Outbox;
use super::refusal::Subject;
use super::{Place, thread};
use crate::error::Error;
use crate::progress::Counted;
use sender::Sender;

/// A job that is being detached. Dropped before it is [finished](Sending::finish), nothing of it is left.
pub(crate) struct Sending {
    outbox: Arc<Outbox>,
}

impl Sending {
    /// Begins; blocks until the coordinator has taken the job.
    pub(crate) fn start(place: &Place, detach: Detach) -> Result<Self, Error> {
        let subject = Subject::new(place, "detach", &detach.name);
        let outbox = Arc::new(Outbox::default());
        let (own, refused) = (Arc::clone(&outbox), Arc::clone(&outbox));
        let send = async move {
            let ended = Sender::new(subject, &own, detach).run().await;
            own.end(ended);
        };
        thread::start(send, move |error| refused.end(Err(error)))?;
        // From here on the thread ends with this.
        let sending = Self { outbox };
        sending.outbox.wait_until_taken()?;
        Ok(sending)
    }

    /// Sends items; blocks while too many are on their way.
    pub(crate) fn send(&self, items: Items) -> Result<(), Error> {
        self.outbox.put(items)
    }

    /// Blocks until all of it is durable.
    pub(crate) fn finish(self) -> Result<(), Error> {
        self.outbox.finish()
    }

    /// How many items are durable.
    pub(crate) fn durable(&self) -> Arc<impl Counted + use<>> {
        Arc::clone(&self.outbox)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.outbox.is_over() {
            self.outbox.abandon();
        }
    }
}
