//! The gRPC service for operators, which passes requests to the loop.

use farpool_proto::v1::operators_server::Operators;
use farpool_proto::v1::{
    CancelJobReply, CancelJobRequest, DrainAgentReply, DrainAgentRequest, StatusReply, StatusRequest,
};
use tonic::{Request, Response, Status};

use super::link::{ControlRequest, Input, Link};
use super::origin::principal;
use super::published;

/// The Operators service.
pub(super) struct OperatorsEdge {
    pub(super) link: Link,
}

#[tonic::async_trait]
impl Operators for OperatorsEdge {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let status = self.link.ask(|asker| Input::Control(ControlRequest::Status(asker))).await??;
        Ok(Response::new(published::decode(status)?))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobReply>, Status> {
        let (by, job) = (principal(&request), request.into_inner().job);
        self.link.ask(|reply| Input::Control(ControlRequest::CancelJob(by, job, reply))).await??;
        Ok(Response::new(CancelJobReply {}))
    }

    async fn drain_agent(&self, request: Request<DrainAgentRequest>) -> Result<Response<DrainAgentReply>, Status> {
        let (by, agent) = (principal(&request), request.into_inner().agent);
        let agent = self.link.ask(|reply| Input::Control(ControlRequest::DrainAgent(by, agent, reply))).await??;
        Ok(Response::new(DrainAgentReply { agent }))
    }
}
