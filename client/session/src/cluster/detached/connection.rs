use bytes::Bytes;
use farpool_net::http2::MAX_GRPC_MESSAGE;
use farpool_proto::v1::detached_jobs_client::DetachedJobsClient;
use farpool_proto::v1::{CancelDetachedRequest, DescribeDetachedRequest, DetachedJob, DiscardDetachedRequest};
use tonic::Status;
use tonic::transport::Channel;

use super::super::connect::{Connection, GrpcConnection};

/// A connection to a coordinator that keeps detached jobs, with the calls of `farpool.v1.DetachedJobs`.
pub trait DetachedConnection: Connection {
    /// Describes the job.
    fn describe(&mut self, name: String, id: Bytes) -> impl Future<Output = Result<DetachedJob, Status>> + Send;

    /// Cancels the items without an outcome.
    fn cancel(&mut self, name: String, id: Bytes) -> impl Future<Output = Result<(), Status>> + Send;

    /// Discards the whole job.
    fn discard(&mut self, name: String, id: Bytes) -> impl Future<Output = Result<(), Status>> + Send;
}

impl GrpcConnection {
    fn jobs(&self) -> DetachedJobsClient<Channel> {
        DetachedJobsClient::new(self.0.clone()).max_decoding_message_size(MAX_GRPC_MESSAGE)
    }
}

impl DetachedConnection for GrpcConnection {
    async fn describe(&mut self, name: String, id: Bytes) -> Result<DetachedJob, Status> {
        let reply = self.jobs().describe(DescribeDetachedRequest { name, id }).await?.into_inner();
        reply.job.ok_or_else(|| Status::unavailable("it ended the call without an answer"))
    }

    async fn cancel(&mut self, name: String, id: Bytes) -> Result<(), Status> {
        self.jobs().cancel(CancelDetachedRequest { name, id, must_run: false }).await.map(drop)
    }

    async fn discard(&mut self, name: String, id: Bytes) -> Result<(), Status> {
        self.jobs().discard(DiscardDetachedRequest { name, id }).await.map(drop)
    }
}
