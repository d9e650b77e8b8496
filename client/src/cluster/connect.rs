//! Reaching a coordinator, and what it means if that goes wrong.

use std::error::Error as _;
use std::time::Duration;

use farpool_net::http2::{self, CONNECT_TIMEOUT, MAX_GRPC_MESSAGE};
use farpool_proto::v1::clients_client::ClientsClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::Address;
use crate::error::{Error, ErrorKind};

/// How long the coordinator may be silent before it counts as gone.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// What to do if there is no coordinator.
const ADVICE: &str = "is farpool-coordinator running there? the address is that of FARPOOL_ADDRESS, or of .address(..)";

/// Connects to the coordinator at this address.
pub(super) async fn connect(address: &Address) -> Result<ClientsClient<Channel>, Error> {
    let endpoint = http2::endpoint(Endpoint::from(address.uri().clone()), HEARTBEAT);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
    let failed = match connected {
        Ok(Ok(channel)) => return Ok(ClientsClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE)),
        Ok(Err(error)) => causes(&error),
        Err(_) => format!("there was no answer within {CONNECT_TIMEOUT:?}"),
    };
    Err(unreachable(address, &failed))
}

/// There is nobody, or not who was expected.
pub(super) fn unreachable(address: &Address, what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("connecting to the coordinator at {address}: {what}; {ADVICE}"))
}

/// The coordinator did not take the pool.
pub(super) fn not_opened(address: &Address, status: &Status) -> Error {
    let words = format!("opening a pool at {address}: {}", told(status));
    match status.code() {
        Code::InvalidArgument => Error::invalid(words),
        Code::Unauthenticated | Code::PermissionDenied => Error::new(ErrorKind::Unauthenticated, words),
        Code::FailedPrecondition | Code::ResourceExhausted => Error::new(ErrorKind::Unavailable, words),
        _ => unreachable(address, &told(status)),
    }
}

/// The session has ended before its pool was closed.
pub(super) fn lost(address: &Address, open_jobs: usize, what: &str) -> Error {
    let meanwhile = match open_jobs {
        0 => "no job was open".to_owned(),
        1 => "a job was open".to_owned(),
        more => format!("{more} jobs were open"),
    };
    Error::new(ErrorKind::Unavailable, format!("the connection to {address} was lost while {meanwhile}: {what}"))
}

/// What a status says, in words for people.
pub(super) fn told(status: &Status) -> String {
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    match status.source() {
        None => message.to_owned(),
        Some(source) => format!("{message}: {}", causes(source)),
    }
}

/// An error and what has caused it, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}
