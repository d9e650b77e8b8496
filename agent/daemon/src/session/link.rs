//! The connection of a session, and the attempts to get one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_net::{Incoming, Outgoing, outgoing, version};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentHello, Version};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::end::Failure;
use super::parts::Connect;

/// Time for a coordinator to accept a connection and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Queued bytes of events above which the agent reads no more outcomes from its workers.
pub(super) const FULL_BYTES: usize = 32 << 20;
/// The level at which it resumes.
pub(super) const DRAINED_BYTES: usize = FULL_BYTES / 2;
/// The largest command. It contains the items of chunks, and items can be large.
const COMMAND_BYTES: u64 = 4 << 30;

/// The state of the connection.
pub(super) enum Link {
    /// The next attempt begins at this time.
    Waiting(Instant),
    Connecting(Pin<Box<dyn Future<Output = Result<Connected, Failure>> + Send>>),
    Up(Incoming<AgentCommand>),
}

/// A successful attempt.
pub(super) enum Connected {
    /// A new session has begun.
    New {
        outgoing: Outgoing<AgentEvent>,
        incoming: Incoming<AgentCommand>,
        /// The commands that arrived together with the welcome.
        first: Vec<AgentCommand>,
        /// The coordinator's release.
        release: String,
    },
    /// The session is resumed.
    Resumed(Incoming<AgentCommand>),
}

/// An event of the link.
pub(super) enum LinkEvent {
    Commands(Vec<AgentCommand>),
    Connected(Connected),
    /// The coordinator ended the stream.
    Ended,
    Failed(Failure),
}

impl Link {
    /// Begins an attempt to start a session with this hello.
    pub(super) fn hello(connect: &mut impl Connect, hello: AgentHello, drained: &Arc<Notify>) -> Link {
        let (outgoing, frames) = outgoing(DRAINED_BYTES, Arc::clone(drained));
        outgoing.push(AgentEvent { body: Some(Event::Hello(Box::new(hello))) });
        let connecting = connect.connect(frames);
        Link::attempt(async move {
            let stream = connecting.await.map_err(|status| Failure::of(&status))?;
            let mut incoming = outgoing.incoming(stream, COMMAND_BYTES);
            let mut first = loop {
                match incoming.next().await {
                    Ok(Some(commands)) if commands.is_empty() => {}
                    Ok(Some(commands)) => break commands,
                    Ok(None) => {
                        let reason = "the coordinator ended the session before its first message".to_owned();
                        return Err(Failure::Lost(reason));
                    }
                    Err(status) => return Err(malformed(&incoming, &status).unwrap_or_else(|| Failure::of(&status))),
                }
            };
            let release = welcome(first.remove(0))?;
            Ok(Connected::New { outgoing, incoming, first, release })
        })
    }

    /// Begins an attempt to resume the session with this secret.
    pub(super) fn resume(connect: &mut impl Connect, outgoing: &Outgoing<AgentEvent>, secret: Bytes) -> Link {
        let connecting = connect.connect(outgoing.resume(secret));
        let outgoing = outgoing.clone();
        Link::attempt(async move {
            let stream = connecting.await.map_err(|status| Failure::of_resume(&status))?;
            let incoming = outgoing.resumed(stream, COMMAND_BYTES).await;
            incoming.map(Connected::Resumed).map_err(|status| Failure::of_resume(&status))
        })
    }

    fn attempt(attempt: impl Future<Output = Result<Connected, Failure>> + Send + 'static) -> Link {
        let late = || Failure::Lost(format!("the coordinator did not answer within {}s", ANSWER_TIMEOUT.as_secs()));
        Link::Connecting(Box::pin(
            async move { timeout(ANSWER_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(late())) },
        ))
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Link::Up(_))
    }

    /// Returns when the next attempt begins.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Link::Waiting(until) => Some(*until),
            _ => None,
        }
    }

    /// Waits for the next event; forever if there is no attempt. Cancel-safe.
    pub(super) async fn next(&mut self) -> LinkEvent {
        match self {
            Link::Waiting(_) => std::future::pending().await,
            Link::Connecting(attempt) => match attempt.await {
                Ok(connected) => LinkEvent::Connected(connected),
                Err(failure) => LinkEvent::Failed(failure),
            },
            Link::Up(incoming) => match incoming.next().await {
                Ok(Some(commands)) => LinkEvent::Commands(commands),
                Ok(None) => LinkEvent::Ended,
                Err(status) => LinkEvent::Failed(malformed(incoming, &status).unwrap_or_else(|| Failure::of(&status))),
            },
        }
    }
}

/// Returns the failure if the stream ended because of malformed data.
fn malformed(incoming: &Incoming<AgentCommand>, status: &Status) -> Option<Failure> {
    incoming.peer_broke_protocol().then(|| Failure::Malformed(status.message().to_owned()))
}

/// Checks the coordinator's first message. Returns its release.
fn welcome(command: AgentCommand) -> Result<String, Failure> {
    let Some(Command::Welcome(version)) = command.body else {
        return Err(Failure::Lost("the coordinator's first message was not Welcome".to_owned()));
    };
    version::check("this agent", "the coordinator", Some(&version)).map_err(|status| Failure::of(&status))?;
    let Version { release, .. } = version;
    Ok(release)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Waiting(_) => "Waiting",
            Link::Connecting(_) => "Connecting",
            Link::Up(_) => "Up",
        })
    }
}
