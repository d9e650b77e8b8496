//! Detached jobs: calls of the coordinator's `DetachedJobs`.
//!
//! Each of them has a thread of its own for as long as it takes, so that it can be waited for in any program, async or not.
//! When a connection is lost the call is made again, from where it was.

mod ask;
mod attempts;
mod inbox;
mod outbox;
mod read;
mod refusal;
mod send;
#[cfg(test)]
mod tests;
mod thread;

use std::time::Duration;

use farpool_net::http2::MAX_GRPC_MESSAGE;
use farpool_proto::v1::OpenPool;
use farpool_proto::v1::detached_jobs_client::DetachedJobsClient;
use tonic::Status;
use tonic::transport::Channel;

use super::Address;
use super::connect::Grpc;
pub(crate) use ask::{about, cancel, discard};
pub(crate) use inbox::End;
pub(crate) use read::{Reading, Step};
pub(crate) use send::Sending;

/// Where detached jobs are kept, and how long it is tried to get there when the connection is lost.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) patience: Duration,
}

/// What a pool on a cluster gives to the jobs that it detaches.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) place: Place,
    /// What their own pools are opened with.
    pub(crate) pool: OpenPool,
}

impl Place {
    /// A connection; dropped with all that was made of it.
    async fn connect(&self) -> Result<Channel, Status> {
        Grpc::new(&self.address).channel().await
    }
}

fn jobs(channel: Channel) -> DetachedJobsClient<Channel> {
    DetachedJobsClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE)
}
