//! Short calls about a detached job: describe, cancel and discard.

use farpool_proto::v1::DetachedJob;
use tonic::Code;
use uuid::Uuid;

use super::super::connect::{Connect, Grpc, is_final};
use super::super::subject::Subject;
use super::attempts::Attempts;
use super::keeper::Keeper;
use super::{Named, Place, thread};
use crate::error::Error;

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

impl Call<Grpc> {
    fn new(place: &Place, verb: &'static str, job: &Named) -> Self {
        let attempts = Attempts::new(place.patience, Uuid::new_v4().as_u64_pair().1);
        Self { connect: Grpc::new(&place.address), subject: Subject::new(place, verb, job), attempts }
    }
}

impl<C: Connect<Connection: Keeper>> Call<C> {
    pub(super) async fn about(mut self, again: bool) -> Result<DetachedJob, Error> {
        loop {
            let describe = async {
                let (name, id) = self.subject.job().parts();
                self.connect.connect().await?.describe(name, id).await
            };
            match self.attempts.answer(describe).await {
                Ok(job) => return Ok(job),
                Err(status) if !again && !is_final(&status) => return Err(self.subject.unreachable(&status)),
                Err(status) => self.attempts.again(&status, &self.subject).await?,
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
                Err(status) => self.attempts.again(&status, &self.subject).await?,
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
                Err(status) => self.attempts.again(&status, &self.subject).await?,
            }
        }
    }
}
