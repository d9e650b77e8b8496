//! A fake server of detached jobs.

use std::sync::{Arc, Mutex, MutexGuard};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::detached_jobs_server::DetachedJobs;
use farpool_proto::v1::{
    CancelDetachedReply, CancelDetachedRequest, DescribeDetachedReply, DescribeDetachedRequest, DetachedJob,
    DetachedState, DiscardDetachedReply, DiscardDetachedRequest, Failure, FailureKind, ItemsFailed, ListDetachedReply,
    ListDetachedRequest, PoolClosed, PoolFailed,
};
use farpool_testkit::coordinator::clients::{self, Peer};
use tonic::{Request, Response, Status};

use crate::service::State;

/// A job and its outcomes so far.
#[derive(Clone)]
pub(crate) struct KeptJob {
    pub(crate) job: DetachedJob,
    pub(crate) outcomes: Vec<Event>,
}

/// The server of these jobs.
#[derive(Clone)]
pub(crate) struct DetachedServer {
    state: Arc<Mutex<State>>,
    kept: Arc<Mutex<Vec<KeptJob>>>,
}

impl DetachedServer {
    pub(crate) fn new(state: Arc<Mutex<State>>, kept: Vec<KeptJob>) -> Self {
        Self { state, kept: Arc::new(Mutex::new(kept)) }
    }

    fn note(&self, request: String) {
        self.state.lock().unwrap().requests.push(request);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<KeptJob>> {
        self.kept.lock().unwrap()
    }

    fn find(&self, name: &str) -> Result<KeptJob, Status> {
        let found = self.kept().iter().find(|kept| kept.job.name == name).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no detached job {name:?}")))
    }

    /// Sends a client the job that it asks for. Then the session stays open until the client leaves.
    pub(crate) fn answer(&self, peer: &Peer) {
        let Body::Attach(attach) = peer.receive() else {
            return peer.refuse(Status::invalid_argument("it did not begin with Attach"));
        };
        let KeptJob { job, outcomes } = match self.find(&attach.name) {
            Ok(kept) => kept,
            Err(status) => return peer.refuse(status),
        };
        let state = job.state();
        peer.welcome_job();
        peer.send_description(job);
        outcomes.into_iter().for_each(|outcome| peer.send(outcome));
        match state {
            DetachedState::Failed => {
                let kind = FailureKind::InitializerFailed.into();
                let failure = Failure { kind, message: "no table".to_owned(), ..Failure::default() };
                peer.send(Event::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
            }
            DetachedState::Cancelled => peer.send_job_ended(attach.job, true),
            state if state == DetachedState::Finished || attach.wait => peer.send_job_ended(attach.job, false),
            _ => {}
        }
        peer.send(Event::PoolClosed(PoolClosed {}));
    }
}

pub(crate) fn result(item: u64, bytes: &[u8]) -> Event {
    clients::done(1, item, &[bytes])
}

pub(crate) fn failure(item: u64) -> Event {
    let failure = Failure {
        kind: FailureKind::Panicked.into(),
        message: "oh no".to_owned(),
        host: "node7".to_owned(),
        pid: 7,
        attempts: 1,
        ..Failure::default()
    };
    Event::ItemsFailed(Box::new(ItemsFailed { job: 1, first: item, failure: Some(failure), count: 1 }))
}

#[tonic::async_trait]
impl DetachedJobs for DetachedServer {
    async fn describe(
        &self,
        request: Request<DescribeDetachedRequest>,
    ) -> Result<Response<DescribeDetachedReply>, Status> {
        let kept = self.find(&request.into_inner().name)?;
        Ok(Response::new(DescribeDetachedReply { job: Some(kept.job) }))
    }

    async fn list(&self, _: Request<ListDetachedRequest>) -> Result<Response<ListDetachedReply>, Status> {
        self.note("list".to_owned());
        let jobs = self.kept().iter().map(|kept| kept.job.clone()).collect();
        Ok(Response::new(ListDetachedReply { jobs }))
    }

    async fn cancel(&self, request: Request<CancelDetachedRequest>) -> Result<Response<CancelDetachedReply>, Status> {
        let CancelDetachedRequest { name, must_run, .. } = request.into_inner();
        self.note(format!("cancel detached {name}"));
        let kept = self.find(&name)?;
        if must_run && kept.job.state() != DetachedState::Running {
            return Err(Status::failed_precondition(format!("job {name:?} has finished: nothing is left")));
        }
        Ok(Response::new(CancelDetachedReply {}))
    }

    async fn discard(
        &self,
        request: Request<DiscardDetachedRequest>,
    ) -> Result<Response<DiscardDetachedReply>, Status> {
        let DiscardDetachedRequest { name, id } = request.into_inner();
        self.note(format!("discard {name}"));
        let kept = self.find(&name)?;
        if kept.job.id != id {
            return Err(Status::not_found("another job has the name"));
        }
        Ok(Response::new(DiscardDetachedReply {}))
    }
}
