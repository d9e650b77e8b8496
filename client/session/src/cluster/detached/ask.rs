//! Short calls about a detached job: describe, cancel and discard.

use farpool_proto::v1::DetachedJob;
use tonic::Code;
use uuid::Uuid;

use super::super::connect::{Connect, Grpc, is_final};
use super::super::subject::Subject;
use super::attempts::Attempts;
use super::connection::DetachedConnection;
use super::{JobLocation, JobRef, thread};
use crate::error::Error;

/// Describes the job. With `retry`, the call is retried until the reconnect timeout.
pub fn about(location: &JobLocation, verb: &'static str, job: &JobRef, retry: bool) -> Result<DetachedJob, Error> {
    thread::wait_for(Request::new(location, verb, job).about(retry))
}

/// Cancels the items without an outcome.
pub fn cancel(location: &JobLocation, job: &JobRef) -> Result<(), Error> {
    thread::wait_for(Request::new(location, "cancel", job).cancel())
}

/// Discards the whole job.
pub fn discard(location: &JobLocation, job: &JobRef) -> Result<(), Error> {
    thread::wait_for(Request::new(location, "discard", job).discard())
}

/// A call that is retried when its connection is lost.
pub(super) struct Request<C> {
    pub(super) connect: C,
    pub(super) subject: Subject,
    pub(super) attempts: Attempts,
}

impl Request<Grpc> {
    fn new(location: &JobLocation, verb: &'static str, job: &JobRef) -> Self {
        let attempts = Attempts::new(location.reconnect_timeout, Uuid::new_v4().as_u64_pair().1);
        Self { connect: Grpc::new(&location.address), subject: Subject::new(location, verb, job), attempts }
    }
}

impl<C: Connect<Connection: DetachedConnection>> Request<C> {
    pub(super) async fn about(mut self, retry: bool) -> Result<DetachedJob, Error> {
        loop {
            let describe = async {
                let (name, id) = self.subject.job().parts();
                self.connect.connect().await?.describe(name, id).await
            };
            match self.attempts.answer(describe).await {
                Ok(job) => return Ok(job),
                Err(status) if !retry && !is_final(&status) => return Err(self.subject.unreachable(&status)),
                Err(status) => self.attempts.wait_for_retry(&status, &self.subject).await?,
            }
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
                Err(status) => self.attempts.wait_for_retry(&status, &self.subject).await?,
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
                Err(status) if before && status.code() == Code::NotFound => return Ok(()),
                Err(status) => self.attempts.wait_for_retry(&status, &self.subject).await?,
            }
        }
    }
}
