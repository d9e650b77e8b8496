//! The gRPC service of detached jobs, which passes requests to the loop.

use farpool_net::Replies;
use farpool_proto::v1::detached_jobs_server::DetachedJobs;
use farpool_proto::v1::{
    CancelDetachedReply, CancelDetachedRequest, ClientEvent, ClientFrame, ClientMessage, DiscardDetachedReply,
    DiscardDetachedRequest, ListDetachedReply, ListDetachedRequest,
};
use tonic::{Request, Response, Status, Streaming};

use super::link::{Input, Link, Question, StreamId};
use super::origin::{principal, source};
use super::published;
use super::sessions::{Kind, open};

/// The DetachedJobs service.
pub(super) struct DetachedEdge {
    pub(super) link: Link,
    pub(super) detach: Kind<ClientEvent, ClientMessage, StreamId>,
    pub(super) attach: Kind<ClientEvent, ClientMessage, StreamId>,
}

#[tonic::async_trait]
impl DetachedJobs for DetachedEdge {
    type DetachStream = Replies<ClientEvent>;
    type AttachStream = Replies<ClientEvent>;

    async fn detach(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::DetachStream>, Status> {
        let (caller, frames) = source(&request);
        Ok(Response::new(open(frames, caller, &self.link, self.detach.clone())))
    }

    async fn attach(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        let (caller, frames) = source(&request);
        Ok(Response::new(open(frames, caller, &self.link, self.attach.clone())))
    }

    async fn list(&self, request: Request<ListDetachedRequest>) -> Result<Response<ListDetachedReply>, Status> {
        let by = principal(&request);
        let list = self.link.ask(|asker| Input::Asked(Question::ListDetached(by, asker))).await??;
        Ok(Response::new(published::decode(list)?))
    }

    async fn cancel(&self, request: Request<CancelDetachedRequest>) -> Result<Response<CancelDetachedReply>, Status> {
        let (by, request) = (principal(&request), request.into_inner());
        self.link.ask(|reply| Input::Asked(Question::CancelDetached(by, request, reply))).await??;
        Ok(Response::new(CancelDetachedReply {}))
    }

    async fn discard(
        &self,
        request: Request<DiscardDetachedRequest>,
    ) -> Result<Response<DiscardDetachedReply>, Status> {
        let (by, request) = (principal(&request), request.into_inner());
        self.link.ask(|reply| Input::Asked(Question::DiscardDetached(by, request, reply))).await??;
        Ok(Response::new(DiscardDetachedReply {}))
    }
}
