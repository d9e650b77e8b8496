//! Calls for detached jobs that the caller drives.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use farpool_net::Secret;
use farpool_proto::v1::{DetachedJob, Items, OpenJob, OpenPool};

use super::super::Address;
use super::super::connect::Connect;
use super::super::subject::Subject;
use super::ask::Request;
use super::attempts::Attempts;
use super::connection::DetachedConnection;
use super::read::{JobReader, ReadEnd, Step};
use super::send::{self, Outgoing};
use super::{JobLocation, JobRef};
use crate::error::Error;

/// A client of detached jobs.
pub struct DetachedClient<C> {
    connect: C,
    location: JobLocation,
    seed: u64,
}

/// A job that is being sent to the coordinator.
pub struct DetachingJob(Outgoing);

/// The outcomes of a detached job.
pub struct DetachedOutcomes(JobReader);

/// The next step in reading them.
#[derive(Clone, Debug)]
pub enum ReadEvent {
    /// An item's outcome.
    Outcome(u64, Result<Bytes, Error>),
    /// An item has no outcome, although later ones have.
    Missing(u64),
    /// The end: every item has its outcome.
    Finished,
    /// The end: the job was cancelled.
    Cancelled,
    /// The end of the outcomes so far: the job is still running.
    Running,
    /// Its pool cannot run.
    Failed(Error),
    /// The job can no longer be read.
    Broken(Error),
}

impl<C: Connect<Connection: DetachedConnection> + Clone> DetachedClient<C> {
    /// Creates a client that retries for this long to reach the coordinator; `seed` seeds its random waits.
    pub fn new(connect: C, reconnect_timeout: Duration, seed: u64) -> Self {
        let address = Address::parse("simulation:1").expect("invalid address");
        Self { connect, location: JobLocation { address, reconnect_timeout }, seed }
    }

    /// Detaches a job, which has a number and `Detach`, in a pool that has a secret. The caller must drive the returned
    /// future to its end: until the whole job is durable, or no longer wanted.
    pub fn detach(
        &mut self,
        pool: OpenPool,
        open: OpenJob,
    ) -> (DetachingJob, impl Future<Output = Result<(), Error>> + use<C>) {
        let (job, secret) = (JobRef::by_name(send::name(&open)), Secret::of(pool.secret.clone()));
        let (session, conversation) = Outgoing::new(&self.location, &job, secret, pool, open);
        (DetachingJob(session), conversation.drive(self.connect.clone()))
    }

    /// Reads the outcomes of a job; with `wait`, until the job has ended. The caller must drive the returned future as
    /// long as it wants outcomes.
    pub fn follow(
        &mut self,
        name: &str,
        wait: bool,
    ) -> (DetachedOutcomes, impl Future<Output = Result<(), Error>> + use<C>) {
        let Request { connect, subject, .. } = self.call("follow", name);
        let secret = Secret::of(self.seed.to_le_bytes().repeat(4).into());
        let (reader, conversation) = JobReader::new(subject, secret, wait);
        (DetachedOutcomes(reader.reporting_missing()), conversation.drive(connect))
    }

    /// Describes a job.
    ///
    /// # Errors
    /// If there is none of this name.
    pub async fn about(&mut self, name: &str) -> Result<DetachedJob, Error> {
        self.call("status", name).about(true).await
    }

    /// Cancels the items without an outcome.
    ///
    /// # Errors
    /// If there is no job of this name.
    pub async fn cancel(&mut self, name: &str) -> Result<(), Error> {
        self.call("cancel", name).cancel().await
    }

    /// Discards a job.
    ///
    /// # Errors
    /// If there is none of this name.
    pub async fn discard(&mut self, name: &str) -> Result<(), Error> {
        self.call("discard", name).discard().await
    }

    fn call(&mut self, verb: &'static str, name: &str) -> Request<C> {
        self.seed = self.seed.wrapping_add(1);
        let attempts = Attempts::new(self.location.reconnect_timeout, self.seed);
        Request {
            connect: self.connect.clone(),
            subject: Subject::new(&self.location, verb, &JobRef::by_name(name)),
            attempts,
        }
    }
}

impl DetachingJob {
    /// Sends these items, after those sent before.
    pub fn send(&self, items: Items) {
        self.0.send(items);
    }

    /// Ends the input: no more items follow.
    pub fn end_input(&self) {
        self.0.end_input();
    }

    /// Withdraws the job: it is no longer wanted.
    pub fn withdraw(&self) {
        self.0.withdraw();
    }

    /// Returns how many items are durable.
    pub fn durable(&self) -> u64 {
        self.0.durable()
    }
}

impl DetachedOutcomes {
    /// Waits for the next step.
    pub async fn next(&mut self) -> ReadEvent {
        poll_fn(|context| {
            loop {
                match self.0.step(|bytes| Ok::<_, Error>(Bytes::copy_from_slice(bytes))) {
                    Step::Wait if self.0.wake_on_arrival(context.waker()) => {}
                    Step::Wait => return Poll::Pending,
                    step => return Poll::Ready(next(step)),
                }
            }
        })
        .await
    }

    /// Returns how many attempts the item of the last outcome took.
    pub fn attempts(&self) -> u32 {
        self.0.attempts()
    }

    /// Returns how many items the job has, as far as known.
    pub fn items(&self) -> u64 {
        self.0.items()
    }
}

fn next(step: Step<Bytes>) -> ReadEvent {
    match step {
        Step::Outcome(item, result) => ReadEvent::Outcome(item, result),
        Step::Missing(item) => ReadEvent::Missing(item),
        Step::Ended(ReadEnd::Finished) => ReadEvent::Finished,
        Step::Ended(ReadEnd::Cancelled) => ReadEvent::Cancelled,
        Step::Ended(ReadEnd::Running) | Step::Wait => ReadEvent::Running,
        Step::Ended(ReadEnd::Failed(error)) => ReadEvent::Failed(error),
        Step::Ended(ReadEnd::Broken(error)) => ReadEvent::Broken(error),
    }
}
