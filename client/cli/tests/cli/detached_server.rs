//! A server of detached jobs that a test makes up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::clients_server::Clients;
use farpool_proto::v1::detached_jobs_server::DetachedJobs;
use farpool_proto::v1::{
    CancelDetachedReply, CancelDetachedRequest, ClientEvent, ClientFrame, DescribeDetachedReply,
    DescribeDetachedRequest, DetachedJob, DetachedState, DiscardDetachedReply, DiscardDetachedRequest, EventFrame,
    Failure, FailureKind, ItemsDone, ItemsFailed, JobEnded, ListDetachedReply, ListDetachedRequest, PoolClosed,
    PoolFailed, ProgramPiece, PutProgramReply, Welcome,
};
use futures_core::Stream;
use tonic::{Request, Response, Status, Streaming};

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
        self.state.lock().unwrap().asked.push(request);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<KeptJob>> {
        self.kept.lock().unwrap()
    }

    fn find(&self, name: &str) -> Result<KeptJob, Status> {
        let found = self.kept().iter().find(|kept| kept.job.name == name).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no detached job {name:?}")))
    }
}

pub(crate) fn result(item: u64, bytes: &[u8]) -> Event {
    let ends = (bytes.len() as u32).to_le_bytes().to_vec().into();
    Event::ItemsDone(ItemsDone { job: 1, first: item, data: bytes.to_vec().into(), ends, failed: false, attempts: 0 })
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

/// The events after an Attach, all made before the first is sent. Then the session stays open until its client leaves.
pub(crate) struct Events(std::vec::IntoIter<Event>);

impl Stream for Events {
    type Item = Result<EventFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = |body| {
            let message = ClientEvent { body: Some(body) };
            Ok(EventFrame { messages: vec![message].into(), ..EventFrame::default() })
        };
        self.0.next().map_or(Poll::Pending, |event| Poll::Ready(Some(frame(event))))
    }
}

#[tonic::async_trait]
impl Clients for DetachedServer {
    type SessionStream = Events;

    async fn session(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Events>, Status> {
        let mut stream = request.into_inner();
        let frame = stream.message().await?.expect("it sends a message");
        let messages = frame.messages.into_vec();
        let Some(Body::Attach(attach)) = messages.into_iter().next().and_then(|message| message.body) else {
            return Err(Status::invalid_argument("it did not begin with Attach"));
        };
        let KeptJob { job, outcomes } = self.find(&attach.name)?;
        let failed = job.state() == DetachedState::Failed;
        let ended = match job.state() {
            DetachedState::Failed => None,
            DetachedState::Finished => Some(false),
            DetachedState::Cancelled => Some(true),
            _ if attach.wait => Some(false),
            _ => None,
        };
        let welcome = Welcome { version: Some(farpool_proto::version()), ..Welcome::default() };
        let mut events = vec![Event::Welcome(welcome), Event::DetachedJob(Box::new(job))];
        events.extend(outcomes);
        if failed {
            let kind = FailureKind::InitializerFailed.into();
            let failure = Failure { kind, message: "no table".to_owned(), ..Failure::default() };
            events.push(Event::PoolFailed(Box::new(PoolFailed { failure: Some(failure) })));
        }
        events.extend(ended.map(|cancelled| Event::JobEnded(JobEnded { job: attach.job, cancelled })));
        events.push(Event::PoolClosed(PoolClosed {}));
        Ok(Response::new(Events(events.into_iter())))
    }

    async fn put_program(&self, _: Request<Streaming<ProgramPiece>>) -> Result<Response<PutProgramReply>, Status> {
        Err(Status::unimplemented("nothing is run here"))
    }
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
