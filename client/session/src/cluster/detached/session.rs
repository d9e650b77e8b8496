//! A session for one detached job.

use std::sync::Arc;
use std::time::Duration;

use farpool_net::Secret;
use farpool_proto::v1::Output;
use farpool_proto::v1::client_message::Body;

use super::super::connect::Connect;
use super::super::conversation::{self, Opener, Terms};
use super::super::driver::SessionDriver;
use super::super::kept::FirstMessage;
use super::super::purpose::Purpose;
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

/// The conversation of a session, before it runs.
pub(super) struct JobConversation {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    terms: Terms,
}

impl JobSession {
    /// Creates a session that begins with `first_message`, for the job of this number. `messages` open the job, if it
    /// does not exist yet.
    pub(super) fn new(
        subject: Subject,
        secret: Secret,
        first_message: FirstMessage,
        number: u64,
        mut messages: Vec<Body>,
    ) -> (Self, JobConversation) {
        let location = subject.location();
        let (reconnect_timeout, shared) =
            (location.reconnect_timeout, Shared::new(location.address.clone(), 0, first_message));
        let inbox = Inbox::new(number, subject.verb(), &subject.job().name, Interest::Outcomes);
        let inbox = Arc::new(inbox.in_session(0, Some(Arc::clone(&shared.gate))));
        shared.submit_alone(&inbox, &mut messages);
        let purpose = Purpose::Job(subject);
        let terms =
            Terms { purpose, secret, payload_limit: 0, reconnect_timeout, program: None, front: Arc::new(Silent) };
        let conversation = JobConversation { shared: Arc::clone(&shared), inbox: Arc::clone(&inbox), terms };
        (Self { shared, inbox }, conversation)
    }
}

impl JobConversation {
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

    /// Runs the conversation on a separate thread. `opener` is called when the job was accepted, or with the error.
    pub(super) fn start(self, opener: Opener) -> Result<(), Error> {
        conversation::start(&self.shared, &Arc::new(SessionDriver::default()), self.terms, opener)
    }

    /// Runs the conversation as a future. Completes with the job's error, if it failed.
    pub(super) async fn drive<C: Connect>(self, connect: C) -> Result<(), Error> {
        conversation::run(self.shared, connect, self.terms, Box::new(drop)).await?;
        self.inbox.end_error().map_or(Ok(()), Err)
    }
}

impl Drop for JobSession {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// Shows nothing: users only see the errors of a job's session.
struct Silent;

impl Front for Silent {
    fn output(&self, _: &Output) {}

    fn notice(&self, _: &str) {}

    fn flush(&self, _: Duration) {}
}
