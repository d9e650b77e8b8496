//! Getting a session: from the TCP connection to the coordinator's welcome.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use farpool_net::http2::{self, MAX_GRPC_MESSAGE};
use farpool_net::{Incoming, Outgoing, outgoing, version};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::agents_client::AgentsClient;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentHello, Version};
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use uuid::Uuid;

use super::session::End;
use super::settings::Settings;

/// Time for a coordinator to accept a connection and to welcome an agent.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Events that wait to be sent, in bytes: above this the agent takes no more results from its workers, ...
pub(super) const FULL_BYTES: usize = 32 << 20;
/// ... and from here on it goes on.
pub(super) const DRAINED_BYTES: usize = FULL_BYTES / 2;
/// The largest command. It brings the items of some chunks, and items can be large.
const COMMAND_BYTES: u64 = 4 << 30;

/// What is needed to get a session.
#[derive(Debug)]
pub(super) struct Connector {
    endpoint: Endpoint,
    hello: AgentHello,
}

/// A session that has begun.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: AgentsClient<Channel>,
    /// The coordinator's.
    pub(super) release: String,
    pub(super) outgoing: Outgoing<AgentEvent>,
    pub(super) incoming: Incoming<AgentCommand>,
    /// Notified when `outgoing` has room again.
    pub(super) drained: Arc<Notify>,
    /// What came together with the welcome.
    pub(super) first: Vec<AgentCommand>,
}

impl Connector {
    pub(super) fn new(settings: &Settings) -> Connector {
        let hello = AgentHello {
            host: settings.host.clone(),
            slots: settings.slots,
            version: Some(farpool_proto::version()),
            id: Uuid::now_v7().into_bytes().to_vec().into(),
            labels: settings.labels.clone(),
            ..AgentHello::default()
        };
        let endpoint = Endpoint::from(settings.uri.clone());
        Connector { endpoint: http2::endpoint(endpoint, settings.heartbeat_timeout), hello }
    }

    /// Gets a session, or says why there is none.
    pub(super) async fn connect(&self) -> Result<Connection, End> {
        let late = |_| End::Lost(format!("it did not answer within {} s", WELCOME_TIMEOUT.as_secs()));
        timeout(WELCOME_TIMEOUT, self.try_to_connect()).await.map_err(late)?
    }

    async fn try_to_connect(&self) -> Result<Connection, End> {
        let channel =
            self.endpoint.connect().await.map_err(|error| End::Lost(with_causes(error.to_string(), &error)))?;
        let mut client = AgentsClient::new(channel)
            .max_decoding_message_size(MAX_GRPC_MESSAGE)
            .max_encoding_message_size(MAX_GRPC_MESSAGE);
        let drained = Arc::new(Notify::new());
        let (outgoing, frames) = outgoing(DRAINED_BYTES, Arc::clone(&drained));
        outgoing.push(AgentEvent { body: Some(Event::Hello(Box::new(self.hello.clone()))) });
        let reply = client.session(frames).await.map_err(|status| End::of(&status))?;
        let mut incoming = outgoing.incoming(reply.into_inner(), COMMAND_BYTES);
        let mut first = loop {
            match incoming.next().await {
                Ok(Some(commands)) if commands.is_empty() => {}
                Ok(Some(commands)) => break commands,
                Ok(None) => return Err(End::Lost("it ended the session before it had welcomed the agent".to_owned())),
                Err(status) => return Err(End::of_incoming(&incoming, &status)),
            }
        };
        let release = welcome(first.remove(0))?;
        Ok(Connection { client, release, outgoing, incoming, drained, first })
    }
}

/// What the coordinator says first; returns its release.
fn welcome(command: AgentCommand) -> Result<String, End> {
    let Some(Command::Welcome(version)) = command.body else {
        return Err(End::Lost("its first message is no welcome".to_owned()));
    };
    version::check("this agent", "the coordinator", Some(&version)).map_err(|status| End::of(&status))?;
    let Version { release, .. } = version;
    Ok(release)
}

impl End {
    /// What it means that nothing more comes in.
    pub(super) fn of_incoming(incoming: &Incoming<AgentCommand>, status: &Status) -> End {
        match incoming.is_garbled() {
            true => End::Lost(format!("it does not keep the protocol: {}", status.message())),
            false => End::of(status),
        }
    }

    /// What it means that the coordinator ended a session with this status.
    fn of(status: &Status) -> End {
        let text = match status.message() {
            "" => status.code().to_string(),
            message => with_causes(message.to_owned(), status),
        };
        match status.code() {
            // Another try would end in the same way.
            Code::FailedPrecondition | Code::InvalidArgument => End::Refused(text),
            _ => End::Lost(text),
        }
    }
}

/// What went wrong, and why: an error of the transport says little by itself.
fn with_causes(text: String, error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(text, |text, cause| match cause.to_string() {
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}
