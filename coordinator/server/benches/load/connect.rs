//! Connections to the coordinator.

use std::sync::Arc;
use std::time::Duration;

use farpool_net::{Frames, Outgoing, SessionMessage, http2, outgoing};
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};

pub(crate) const MESSAGE_LIMIT: u64 = 64 << 20;
/// Long enough for a process with many connections.
const HEARTBEAT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(10);
const TRIES: usize = 1000;

/// Opens a new connection as soon as the coordinator listens.
pub(crate) async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(address.to_owned()).expect("invalid address");
    let endpoint = http2::endpoint(endpoint, HEARTBEAT);
    for _ in 0..TRIES {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        tokio::time::sleep(RETRY).await;
    }
    panic!("the coordinator does not listen on {address}");
}

/// Returns a queue of messages to send; nothing waits for it to drain.
pub(crate) fn queue<M: SessionMessage>() -> (Outgoing<M>, Frames<M>) {
    outgoing(0, Arc::new(Notify::new()))
}
