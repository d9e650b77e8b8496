//! Connects to a coordinator, and classifies errors.

use std::io;
use std::time::Duration;

use farpool_agent::standard::HoldStandard;
use farpool_net::Frames;
use farpool_net::dial::{self, reason};
use farpool_net::http2::MAX_GRPC_MESSAGE;
use farpool_programs::Pieces;
use farpool_proto::v1::clients_client::ClientsClient;
use farpool_proto::v1::{ClientMessage, EventFrame};
use futures_core::Stream;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::Address;
use crate::error::{Error, ErrorKind, Remedy};

/// How long the coordinator may be silent before it counts as lost.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Creates the runtime of a thread that talks to a coordinator.
pub(super) fn runtime() -> io::Result<Runtime> {
    let _standard = HoldStandard::new()?;
    Builder::new_current_thread().enable_io().enable_time().build()
}

/// Makes connections to a coordinator: over gRPC, or in a simulation.
pub trait Connect: Send + Sync {
    /// A connection.
    type Connection: Connection;

    /// Makes a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Status>> + Send;
}

/// A connection to a coordinator, with the calls of `farpool.v1.Clients`.
pub trait Connection: Send + 'static {
    /// The stream of the coordinator's messages in a session.
    type Events: Stream<Item = Result<EventFrame, Status>> + Send + 'static;

    /// Begins or resumes a session.
    fn session(&mut self, frames: Frames<ClientMessage>) -> impl Future<Output = Result<Self::Events, Status>> + Send;

    /// Sends a program. Returns true when the coordinator has it or does not want it, false when the coordinator does
    /// not answer.
    fn put_program(&mut self, pieces: Pieces) -> impl Future<Output = bool> + Send + 'static;
}

/// The coordinator at an address, over gRPC.
pub(super) struct Grpc(Endpoint);

impl Grpc {
    pub(super) fn new(address: &Address) -> Self {
        Self(dial::endpoint(address, HEARTBEAT))
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let standard = HoldStandard::new();
        let connected = dial::connect(&self.0).await;
        drop(standard);
        connected.map_err(|error| Status::unavailable(error.to_string()))
    }
}

impl Connect for Grpc {
    type Connection = GrpcConnection;

    async fn connect(&self) -> Result<GrpcConnection, Status> {
        Ok(GrpcConnection(self.channel().await?))
    }
}

/// A connection over gRPC.
pub(super) struct GrpcConnection(pub(super) Channel);

impl GrpcConnection {
    fn clients(&self) -> ClientsClient<Channel> {
        ClientsClient::new(self.0.clone()).max_decoding_message_size(MAX_GRPC_MESSAGE)
    }
}

impl Connection for GrpcConnection {
    type Events = Streaming<EventFrame>;

    async fn session(&mut self, frames: Frames<ClientMessage>) -> Result<Self::Events, Status> {
        Ok(self.clients().session(frames).await?.into_inner())
    }

    fn put_program(&mut self, pieces: Pieces) -> impl Future<Output = bool> + Send + 'static {
        let mut clients = self.clients();
        // Another client may have sent it first. If no client can, the coordinator fails the pool and says why.
        async move { clients.put_program(pieces).await.map_or_else(|status| is_final(&status), |_| true) }
    }
}

/// Returns whether a coordinator that sent this status would answer the same again. Otherwise a retry may succeed.
pub(super) fn is_final(status: &Status) -> bool {
    match status.code() {
        Code::Ok | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded => false,
        Code::Aborted | Code::Internal | Code::Unavailable => false,
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::PermissionDenied => true,
        Code::ResourceExhausted | Code::FailedPrecondition | Code::OutOfRange => true,
        Code::Unimplemented | Code::DataLoss | Code::Unauthenticated => true,
    }
}

/// The error if no coordinator, or another server, is at the address.
pub(super) fn unreachable(address: &Address, what: &str) -> Error {
    let words = format!("cannot reach the coordinator at {address}: {what}");
    Error::new(ErrorKind::Unavailable, words).with_remedy(Remedy::CheckAddress)
}

/// The error if the coordinator refused the pool.
pub(super) fn not_opened(address: &Address, status: &Status) -> Error {
    let words = format!("cannot open a pool at {address}: {}", reason(status));
    match status.code() {
        Code::InvalidArgument => Error::invalid(words),
        Code::Unauthenticated | Code::PermissionDenied => Error::new(ErrorKind::Unauthenticated, words),
        Code::FailedPrecondition | Code::ResourceExhausted => Error::new(ErrorKind::Unavailable, words),
        _ => unreachable(address, &reason(status)),
    }
}

/// The error if the session ended before its pool was closed.
pub(super) fn lost(address: &Address, open_jobs: usize, what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, loss(address, open_jobs, what))
}

/// The error if the session could not reconnect within this time. `last` is how the last attempt failed.
pub(super) fn given_up(address: &Address, open_jobs: usize, what: &str, tried: Duration, last: &str) -> Error {
    let loss = loss(address, open_jobs, what);
    let words = format!("{loss}; could not reconnect within {tried:?}: {last}");
    Error::new(ErrorKind::Unavailable, words).with_remedy(Remedy::ReconnectLonger)
}

fn loss(address: &Address, open_jobs: usize, what: &str) -> String {
    let meanwhile = match open_jobs {
        0 => "no job was open".to_owned(),
        1 => "a job was open".to_owned(),
        more => format!("{more} jobs were open"),
    };
    format!("the connection to {address} was lost while {meanwhile}: {what}")
}
