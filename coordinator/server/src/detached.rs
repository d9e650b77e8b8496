//! The gRPC service of detached jobs, which passes requests to the loop.

use farpool_proto::v1::detached_jobs_server::DetachedJobs;
use farpool_proto::v1::{
    CancelDetachedReply, CancelDetachedRequest, DescribeDetachedReply, DescribeDetachedRequest, DiscardDetachedReply,
    DiscardDetachedRequest, ListDetachedReply, ListDetachedRequest,
};
use tonic::{Request, Response, Status};

use super::link::{ControlRequest, Input, Link};
use super::origin::principal;
use super::published;

/// The DetachedJobs service.
pub(super) struct DetachedEdge {
    pub(super) link: Link,
}

#[tonic::async_trait]
impl DetachedJobs for DetachedEdge {
    async fn describe(
        &self,
        request: Request<DescribeDetachedRequest>,
    ) -> Result<Response<DescribeDetachedReply>, Status> {
        let (by, request) = (principal(&request), request.into_inner());
        let job = self.link.ask(|reply| Input::Control(ControlRequest::DescribeDetached(by, request, reply))).await??;
        Ok(Response::new(DescribeDetachedReply { job: Some(job) }))
    }

    async fn list(&self, request: Request<ListDetachedRequest>) -> Result<Response<ListDetachedReply>, Status> {
        let by = principal(&request);
        let list = self.link.ask(|asker| Input::Control(ControlRequest::ListDetached(by, asker))).await??;
        Ok(Response::new(published::decode(list)?))
    }

    async fn cancel(&self, request: Request<CancelDetachedRequest>) -> Result<Response<CancelDetachedReply>, Status> {
        let (by, request) = (principal(&request), request.into_inner());
        self.link.ask(|reply| Input::Control(ControlRequest::CancelDetached(by, request, reply))).await??;
        Ok(Response::new(CancelDetachedReply {}))
    }

    async fn discard(
        &self,
        request: Request<DiscardDetachedRequest>,
    ) -> Result<Response<DiscardDetachedReply>, Status> {
        let (by, request) = (principal(&request), request.into_inner());
        self.link.ask(|reply| Input::Control(ControlRequest::DiscardDetached(by, request, reply))).await??;
        Ok(Response::new(DiscardDetachedReply {}))
    }
}
