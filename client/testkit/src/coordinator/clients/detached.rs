//! Detached jobs. Each is alone in its session.

use farpool_proto::v1::client_event::Body as Event;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::detached_jobs_server::DetachedJobs;
use farpool_proto::v1::{
    Attach, CancelDetachedReply, CancelDetachedRequest, ClosePool, DescribeDetachedReply, DescribeDetachedRequest,
    DetachedJob, DiscardDetachedReply, DiscardDetachedRequest, Durable, Failure, FailureKind, Items, ItemsFailed,
    ListDetachedReply, ListDetachedRequest, OpenJob, OpenPool, PoolClosed, Window,
};
use tonic::{Request, Response, Status};

use super::peer::{Peer, items_in};
use super::service::Service;

/// The number of a job.
const JOB: u64 = 1;
/// Bytes that may be sent beyond what is durable.
const WINDOW: u64 = 16 << 20;

impl Peer {
    /// Accepts a session for a detached job.
    pub fn welcome_job(&self) {
        self.send_welcome("one", WINDOW);
    }

    /// Receives the pool and the job that is being detached, and accepts the session.
    pub fn receive_detach(&self) -> (OpenPool, OpenJob) {
        let Body::OpenPool(pool) = self.receive() else { panic!("the first message is not OpenPool") };
        self.welcome_job();
        match self.receive() {
            Body::OpenJob(job) => (*pool, *job),
            other => panic!("unexpected message instead of OpenJob: {other:?}"),
        }
    }

    /// Receives the request to read a job, and accepts the session.
    pub fn receive_attach(&self) -> Attach {
        let Body::Attach(attach) = self.receive() else { panic!("the first message is not Attach") };
        self.welcome_job();
        *attach
    }

    /// Receives all items up to the end, each with its index.
    pub fn receive_all_items(&self) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            match self.receive() {
                Body::Items(items) => {
                    let (first, each) = items_in(&items);
                    all.extend((first..).zip(each.into_iter().map(<[u8]>::to_vec)));
                }
                Body::EndItems(_) => return all,
                // In a session that was opened again.
                Body::PoolReopened(_) => {}
                other => panic!("unexpected message instead of items: {other:?}"),
            }
        }
    }

    /// Receives the next items.
    pub fn receive_items(&self) -> Items {
        match self.receive() {
            Body::Items(items) => items,
            // In a session that was opened again.
            Body::PoolReopened(_) => self.receive_items(),
            other => panic!("unexpected message instead of items: {other:?}"),
        }
    }

    /// Receives the withdrawal of the job, and answers it.
    pub fn receive_withdrawal(&self) {
        loop {
            match self.receive() {
                Body::Items(_) => {}
                Body::CancelJob(cancel) => break assert_eq!(cancel.job, JOB),
                other => panic!("unexpected message instead of CancelJob: {other:?}"),
            }
        }
        assert_eq!(self.receive(), Body::ClosePool(ClosePool { now: true }));
        self.send_ended(true);
        self.send(Event::PoolClosed(PoolClosed {}));
    }

    /// Reports items before this one as durable, and raises the window accordingly.
    pub fn send_durable(&self, items: u64, complete: bool) {
        self.send(Event::Durable(Durable { job: JOB, items, complete }));
        if complete {
            self.send(Event::PoolClosed(PoolClosed {}));
        } else {
            self.send(Event::Window(Window { job: JOB, limit: self.bytes_received_before(items) + WINDOW }));
        }
    }

    /// Describes the job to a client that reads it.
    pub fn send_description(&self, job: DetachedJob) {
        self.send(Event::DetachedJob(Box::new(job)));
    }

    /// Reports that this many items, from `first` on, have panicked.
    pub fn send_failed(&self, first: u64, count: u64, message: &str) {
        let failure = Failure { kind: FailureKind::Panicked.into(), message: message.to_owned(), ..Failure::default() };
        self.send(Event::ItemsFailed(Box::new(ItemsFailed { job: JOB, first, failure: Some(failure), count })));
    }

    /// Reports that the job has ended.
    pub fn send_ended(&self, cancelled: bool) {
        self.send_job_ended(JOB, cancelled);
    }
}

#[tonic::async_trait]
impl DetachedJobs for Service {
    async fn describe(
        &self,
        request: Request<DescribeDetachedRequest>,
    ) -> Result<Response<DescribeDetachedReply>, Status> {
        self.state().note(format!("describe {}", request.into_inner().name))?;
        Ok(Response::new(DescribeDetachedReply { job: self.state().described() }))
    }

    async fn list(&self, _: Request<ListDetachedRequest>) -> Result<Response<ListDetachedReply>, Status> {
        self.state().note("list".to_owned())?;
        Ok(Response::new(ListDetachedReply::default()))
    }

    async fn cancel(&self, request: Request<CancelDetachedRequest>) -> Result<Response<CancelDetachedReply>, Status> {
        self.state().note(format!("cancel {}", request.into_inner().name))?;
        Ok(Response::new(CancelDetachedReply {}))
    }

    async fn discard(
        &self,
        request: Request<DiscardDetachedRequest>,
    ) -> Result<Response<DiscardDetachedReply>, Status> {
        self.state().note(format!("discard {}", request.into_inner().name))?;
        Ok(Response::new(DiscardDetachedReply {}))
    }
}
