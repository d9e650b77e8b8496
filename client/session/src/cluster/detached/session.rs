//! A session that is there for one detached job.

use std::sync::Arc;
use std::time::Duration;

use farpool_net::Secret;
use farpool_proto::v1::Output;
use farpool_proto::v1::client_message::Body;

use super::super::connect::Connect;
use super::super::conversation::{self, Opener, Terms};
use super::super::driver::SessionDriver;
use super::super::errand::Errand;
use super::super::kept::Greeting;
use super::super::shared::Shared;
use super::super::subject::Subject;
use crate::cluster::executable::Executable;
use crate::error::Error;
use crate::front::Front;
use crate::inbox::{Inbox, Interest};

/// The program's side of the session, and the job's inbox. Dropping it ends the session.
pub(super) struct JobSession {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Arc<Inbox>,
}

/// What the conversation needs.
pub(super) struct Talk {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    terms: Terms,
}

impl JobSession {
    /// Creates a session that begins with `greeting`, for the job of this number. `messages` open the job, if it is not there.
    pub(super) fn new(
        subject: Subject,
        secret: Secret,
        greeting: Greeting,
        number: u64,
        mut messages: Vec<Body>,
    ) -> (Self, Talk) {
        let place = subject.place();
        let (reconnect_timeout, shared) = (place.patience, Shared::new(place.address.clone(), 0, greeting));
        let inbox = Inbox::new(number, subject.verb(), &subject.job().name, Interest::Outcomes);
        let inbox = Arc::new(inbox.in_session(0, Some(Arc::clone(&shared.gate))));
        shared.submit_alone(&inbox, &mut messages);
        let errand = Errand::Job(subject);
        let terms =
            Terms { errand, secret, payload_limit: 0, reconnect_timeout, program: None, front: Arc::new(Silent) };
        let talk = Talk { shared: Arc::clone(&shared), inbox: Arc::clone(&inbox), terms };
        (Self { shared, inbox }, talk)
    }
}

impl Talk {
    /// Sets the program that the coordinator may ask for.
    pub(super) fn with_program(mut self, program: Option<Executable>) -> Self {
        self.terms.program = program;
        self
    }

    /// Accepts results up to this size.
    pub(super) fn accepting(mut self, payload_limit: u64) -> Self {
        self.terms.payload_limit = payload_limit;
        self
    }

    /// Holds the conversation on a thread of its own. `opener` is told when the job is taken, or why it is not.
    pub(super) fn start(self, opener: Opener) -> Result<(), Error> {
        conversation::start(&self.shared, &Arc::new(SessionDriver::default()), self.terms, opener)
    }

    /// Holds the conversation, for whoever drives it. Completes with the error that the job has ended in, if it has.
    pub(super) async fn drive<C: Connect>(self, connect: C) -> Result<(), Error> {
        conversation::talk(self.shared, connect, self.terms, Box::new(drop)).await?;
        self.inbox.end_error().map_or(Ok(()), Err)
    }
}

impl Drop for JobSession {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// The user is told nothing of a job's session but its errors.
struct Silent;

impl Front for Silent {
    fn output(&self, _: &Output) {}

    fn notice(&self, _: &str) {}

    fn flush(&self, _: Duration) {}
}
