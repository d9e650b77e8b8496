//! Opens connections to a coordinator, in the same way for agents, clients and operators.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use farpool_common::address::Address;
use farpool_common::causes::root_cause;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{self, Channel, Endpoint};

use crate::http2::{self, CONNECT_TIMEOUT};

/// Why connecting failed.
#[derive(Debug)]
pub enum DialError {
    /// Nothing listens there, or it does not speak HTTP/2.
    Unreachable(transport::Error),
    /// The peer accepts connections, but has sent nothing for this time.
    Silent(Duration),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "{}", root_cause(error)),
            Self::Silent(waited) => write!(f, "there was no answer within {waited:?}"),
        }
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable(error) => Some(error),
            Self::Silent(_) => None,
        }
    }
}

/// Returns why a call failed: what the peer said, or why the connection was lost.
pub fn reason(status: &Status) -> String {
    match (status.source(), status.message()) {
        // Made on this side.
        (Some(source), _) => root_cause(source).to_string(),
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

/// Returns the endpoint of the coordinator at an address. It counts as gone if it is silent for `heartbeat`.
pub fn endpoint(address: &Address, heartbeat: Duration) -> Endpoint {
    http2::endpoint(Endpoint::from(address.uri().clone()), heartbeat)
}

/// Opens a connection.
///
/// # Errors
/// If there is none within [`CONNECT_TIMEOUT`].
pub async fn connect(endpoint: &Endpoint) -> Result<Channel, DialError> {
    // Otherwise a peer that accepts connections and then stays silent would not be noticed.
    match timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
        Ok(connected) => connected.map_err(DialError::Unreachable),
        Err(_) => Err(DialError::Silent(CONNECT_TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_has_the_systems_error() {
        // The port was just closed, so nothing listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address: Address =
            listener.local_addr().expect("the listener is bound").to_string().parse().expect("the address is valid");
        drop(listener);
        let error = connect(&endpoint(&address, Duration::from_secs(5))).await.expect_err("nothing listens there");
        assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
        assert!(error.to_string().contains("Connection refused"), "{error}");
        assert!(!error.to_string().contains("transport"), "{error}");
    }
}
