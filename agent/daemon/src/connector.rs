//! Connects to the coordinator: gRPC over TCP.

use std::sync::Arc;

use farpool_net::http2::MAX_GRPC_MESSAGE;
use farpool_net::{Frames, dial};
use farpool_proto::v1::AgentEvent;
use farpool_proto::v1::agents_client::AgentsClient;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::session::{CommandFrames, Connect, Connecting};
use super::settings::Settings;

/// The coordinator's endpoint, while there is a connection; changes with each new one.
pub(super) type Coordinator = watch::Receiver<Option<Endpoint>>;

/// Opens connections to the coordinator.
#[derive(Debug)]
pub(super) struct Connector {
    endpoint: Endpoint,
    connected: Arc<watch::Sender<Option<Endpoint>>>,
}

impl Connector {
    pub(super) fn new(settings: &Settings) -> Connector {
        let endpoint = dial::endpoint(&settings.coordinator, settings.heartbeat_timeout);
        Connector { endpoint, connected: Arc::new(watch::Sender::new(None)) }
    }

    /// Returns the endpoint for other requests to the coordinator.
    pub(super) fn coordinator(&self) -> Coordinator {
        self.connected.subscribe()
    }
}

/// Returns a client of the coordinator on this connection.
pub(super) fn client(channel: Channel) -> AgentsClient<Channel> {
    AgentsClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE).max_encoding_message_size(MAX_GRPC_MESSAGE)
}

impl Connect for Connector {
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting {
        let (endpoint, connected) = (self.endpoint.clone(), Arc::clone(&self.connected));
        Box::pin(async move {
            let channel = dial::connect(&endpoint).await;
            let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
            let reply = client(channel).session(frames).await?;
            connected.send_replace(Some(endpoint));
            let frames: CommandFrames = Box::pin(reply.into_inner());
            Ok(frames)
        })
    }
}
