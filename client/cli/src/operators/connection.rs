//! A connection to a coordinator's Operators service.

use std::time::Duration;

use bytes::Bytes;
use farpool_common::address::Address;
use farpool_net::dial::{self, DialError};
use farpool_proto::v1::detached_jobs_client::DetachedJobsClient;
use farpool_proto::v1::operators_client::OperatorsClient;
use farpool_proto::v1::{
    CancelDetachedRequest, CancelJobRequest, DetachedJob, DiscardDetachedRequest, DrainAgentRequest,
    ListDetachedRequest, StatusReply, StatusRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use super::error::OperatorError;

pub(super) struct Connection {
    address: String,
    client: OperatorsClient<Channel>,
    detached: DetachedJobsClient<Channel>,
}

/// How long an answer may take. The coordinator has it in memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A status with very many agents and jobs is large.
const LARGEST_STATUS: usize = 256 << 20;

/// Parses an address that somebody has given.
pub(super) fn parse(address: &str) -> Result<Address, OperatorError> {
    Address::parse(address).map_err(|error| OperatorError::address(&error))
}

impl Connection {
    pub(super) async fn open(address: &str) -> Result<Connection, OperatorError> {
        let parsed = parse(address)?;
        // An answer that is missing after the timeout is an error before a heartbeat could tell.
        let endpoint = dial::endpoint(&parsed, 2 * ANSWER_TIMEOUT).timeout(ANSWER_TIMEOUT);
        let channel = dial::connect(&endpoint).await.map_err(|error| match error {
            DialError::Unreachable(error) => OperatorError::unreachable(address, &error),
            DialError::Silent(waited) => OperatorError::silent(address, waited),
        })?;
        let detached = DetachedJobsClient::new(channel.clone()).max_decoding_message_size(LARGEST_STATUS);
        let client = OperatorsClient::new(channel).max_decoding_message_size(LARGEST_STATUS);
        Ok(Connection { address: address.to_owned(), client, detached })
    }

    pub(super) async fn status(&mut self) -> Result<StatusReply, OperatorError> {
        let reply = self.client.status(StatusRequest {}).await;
        reply.map(tonic::Response::into_inner).map_err(|status| OperatorError::refused(&self.address, status))
    }

    pub(super) async fn cancel_job(&mut self, request: CancelJobRequest) -> Result<(), OperatorError> {
        let reply = self.client.cancel_job(request).await;
        reply.map(drop).map_err(|status| {
            OperatorError::refused(&self.address, status).advise("give a detached job's name with --detached")
        })
    }

    pub(super) async fn detached_jobs(&mut self) -> Result<Vec<DetachedJob>, OperatorError> {
        let reply = self.detached.list(ListDetachedRequest {}).await;
        reply.map(|reply| reply.into_inner().jobs).map_err(|status| OperatorError::refused(&self.address, status))
    }

    /// Returns whether a detached job has this name. False if the coordinator keeps no detached jobs.
    pub(super) async fn has_detached(&mut self, name: &str) -> Result<bool, OperatorError> {
        match self.detached.list(ListDetachedRequest {}).await {
            Ok(reply) => Ok(reply.into_inner().jobs.iter().any(|job| job.name == name)),
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::Unimplemented) => Ok(false),
            Err(status) => Err(OperatorError::refused(&self.address, status)),
        }
    }

    /// Cancels a detached job that has not ended.
    pub(super) async fn cancel_detached(&mut self, name: String) -> Result<(), OperatorError> {
        let request = CancelDetachedRequest { name, must_run: true, ..CancelDetachedRequest::default() };
        let reply = self.detached.cancel(request).await;
        reply.map(drop).map_err(|status| {
            OperatorError::refused(&self.address, status).advise("`farpool results` lists the detached jobs")
        })
    }

    /// Discards the job with this name, if it still has this id.
    pub(super) async fn discard_detached(&mut self, name: String, id: Bytes) -> Result<(), OperatorError> {
        let reply = self.detached.discard(DiscardDetachedRequest { name, id }).await;
        reply.map(drop).map_err(|status| {
            OperatorError::refused(&self.address, status).advise("`farpool results` lists the detached jobs")
        })
    }

    /// Drains an agent and returns its id.
    pub(super) async fn drain_agent(&mut self, request: DrainAgentRequest) -> Result<String, OperatorError> {
        let reply = self.client.drain_agent(request).await;
        reply
            .map(|reply| reply.into_inner().agent)
            .map_err(|status| OperatorError::refused(&self.address, status).advise("`farpool agents` shows more"))
    }
}
