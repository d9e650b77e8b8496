//! Sends a whole job to the coordinator.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_net::Secret;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{CancelJob, ClosePool, EndItems, Items, OpenJob, OpenPool};

use super::super::conversation::Opener;
use super::super::subject::Subject;
use super::session::{JobConversation, JobSession};
use super::{DetachSettings, JobLocation, JobRef};
use crate::counted::Counted;
use crate::error::Error;
use crate::fork::{self, Owned};
use crate::inbox::Room;

/// How long the coordinator may take to drop a job that is no longer wanted. If it takes longer, it drops the job later, because
/// no client resumes sending.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// A job that is being detached. If it is dropped before it is [finished](JobSender::finish), the coordinator keeps nothing.
pub struct JobSender {
    job: JobRef,
    session: Owned<Outgoing>,
    /// Bytes of items so far, as the window counts them.
    sent_bytes: u64,
}

/// The session that a job is sent in.
pub(super) struct Outgoing(JobSession);

impl JobSender {
    /// Begins, with a new secret for the job. `open` has a number and [`Detach`](farpool_proto::v1::Detach). Blocks
    /// until the coordinator has accepted it.
    ///
    /// # Errors
    /// If the coordinator refuses the job, or cannot be reached.
    pub fn start(detach_settings: &DetachSettings, open: OpenJob) -> Result<Self, Error> {
        let secret = Secret::random();
        let job = JobRef { id: Bytes::copy_from_slice(&secret.id()), ..JobRef::by_name(name(&open)) };
        let (session, conversation) =
            Outgoing::new(&detach_settings.location, &job, secret, detach_settings.pool.clone(), open);
        let (sender, receiver) = mpsc::sync_channel(1);
        let opener: Opener = Box::new(move |answer| drop(sender.send(answer)));
        // From here on, dropping this ends the session.
        let sending = Self { job, session: Owned::new(session), sent_bytes: 0 };
        conversation.with_program(detach_settings.program.clone()).start(opener)?;
        let _lent = farpool_worker::lend();
        let silent = || Error::protocol("the thread that talks to the coordinator ended unexpectedly");
        receiver.recv().unwrap_or_else(|_| Err(sending.session.0.inbox.add_context(silent())))?;
        Ok(sending)
    }

    /// Sends items; blocks while too many are not durable.
    ///
    /// # Errors
    /// If the job cannot be detached.
    pub fn send(&mut self, items: Items) -> Result<(), Error> {
        fork::check_detached(self.session.owner())?;
        // One message may be larger than the room.
        self.session.wait(Room { sent_bytes: self.sent_bytes, finished: u64::MAX })?;
        self.sent_bytes += (items.data.len() + items.ends.len()) as u64;
        self.session.send(items);
        Ok(())
    }

    /// Blocks until the whole job is durable. Returns its name and id.
    ///
    /// # Errors
    /// If the job cannot be detached.
    pub fn finish(self) -> Result<JobRef, Error> {
        fork::check_detached(self.session.owner())?;
        self.session.end_input();
        self.session.wait(Room::NEVER)?;
        Ok(self.job.clone())
    }

    /// Returns how many items are durable.
    pub fn durable(&self) -> Arc<impl Counted + use<>> {
        Arc::clone(&self.session.0.inbox)
    }
}

impl Outgoing {
    /// Creates the session of a job that is `open`ed in a `pool` with these settings.
    pub(super) fn new(
        location: &JobLocation,
        job: &JobRef,
        secret: Secret,
        pool: OpenPool,
        open: OpenJob,
    ) -> (Self, JobConversation) {
        let pool = OpenPool { secret: secret.to_bytes(), detached: true, ..pool };
        let (number, messages) = (open.job, vec![Body::OpenJob(Box::new(open))]);
        let subject = Subject::new(location, "detach", job);
        let (session, conversation) = JobSession::new(subject, secret, pool.into(), number, messages);
        (Self(session), conversation)
    }

    /// Sends items, even without room.
    pub(super) fn send(&self, items: Items) {
        self.send_body(Body::Items(items));
    }

    pub(super) fn end_input(&self) {
        self.send_body(Body::EndItems(EndItems { job: self.0.inbox.job() }));
    }

    /// Withdraws the job, which is no longer wanted.
    pub(super) fn withdraw(&self) {
        let job = self.0.inbox.job();
        self.0.shared.send(&mut vec![Body::CancelJob(CancelJob { job }), Body::ClosePool(ClosePool { now: true })]);
    }

    /// Returns how many items are durable.
    pub(super) fn durable(&self) -> u64 {
        self.0.inbox.finished()
    }

    /// Blocks until there is room or the whole job is durable.
    fn wait(&self, room: Room) -> Result<(), Error> {
        let _lent = farpool_worker::lend();
        self.0.inbox.park_until_room(room);
        self.0.inbox.end_error().map_or(Ok(()), Err)
    }

    fn send_body(&self, body: Body) {
        self.0.shared.send(&mut vec![body]);
    }
}

/// Returns the name of the detached job.
pub(super) fn name(open: &OpenJob) -> &str {
    open.detach.as_ref().map_or("", |detach| &detach.name)
}

impl Drop for JobSender {
    fn drop(&mut self) {
        if self.session.owner().is_here() && !self.session.0.inbox.ended() {
            self.session.withdraw();

            let _lent = farpool_worker::lend();
            self.session.0.shared.wait_until_over(Some(Instant::now() + DROP_TIMEOUT));
        }
    }
}
