//! The connection of a session, and the tries to get one.

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
/// Events that wait to be sent, in bytes: above this the agent takes no more results from its workers, ...
pub(super) const FULL_BYTES: usize = 32 << 20;
/// ... and from here on it goes on.
pub(super) const DRAINED_BYTES: usize = FULL_BYTES / 2;
/// The largest command. It brings the items of some chunks, and items can be large.
const COMMAND_BYTES: u64 = 4 << 30;

/// Where the connection is.
pub(super) enum Link {
    /// The next try begins then.
    Waits(Instant),
    Tries(Pin<Box<dyn Future<Output = Result<Connected, Failure>> + Send>>),
    Up(Incoming<AgentCommand>),
}

/// A try that was of use.
pub(super) enum Connected {
    /// A session has begun.
    Anew {
        outgoing: Outgoing<AgentEvent>,
        incoming: Incoming<AgentCommand>,
        /// What came together with the welcome.
        first: Vec<AgentCommand>,
        /// The coordinator's.
        release: String,
    },
    /// The session goes on.
    Again(Incoming<AgentCommand>),
}

/// What was heard of the link.
pub(super) enum Heard {
    Commands(Vec<AgentCommand>),
    Connected(Connected),
    /// The stream has come to its end.
    Ended,
    Failed(Failure),
}

impl Link {
    /// Tries to get a session with this hello.
    pub(super) fn hello(connect: &mut impl Connect, hello: AgentHello, drained: &Arc<Notify>) -> Link {
        let (outgoing, frames) = outgoing(DRAINED_BYTES, Arc::clone(drained));
        outgoing.push(AgentEvent { body: Some(Event::Hello(Box::new(hello))) });
        let connecting = connect.connect(frames);
        Link::trying(async move {
            let stream = connecting.await.map_err(|status| Failure::of(&status))?;
            let mut incoming = outgoing.incoming(stream, COMMAND_BYTES);
            let mut first = loop {
                match incoming.next().await {
                    Ok(Some(commands)) if commands.is_empty() => {}
                    Ok(Some(commands)) => break commands,
                    Ok(None) => {
                        let reason = "it ended the session before its first message".to_owned();
                        return Err(Failure::Lost(reason));
                    }
                    Err(status) => return Err(garbled(&incoming, &status).unwrap_or_else(|| Failure::of(&status))),
                }
            };
            let release = welcome(first.remove(0))?;
            Ok(Connected::Anew { outgoing, incoming, first, release })
        })
    }

    /// Tries to resume the session that has this secret.
    pub(super) fn resume(connect: &mut impl Connect, outgoing: &Outgoing<AgentEvent>, secret: Bytes) -> Link {
        let connecting = connect.connect(outgoing.resume(secret));
        let outgoing = outgoing.clone();
        Link::trying(async move {
            let stream = connecting.await.map_err(|status| Failure::to_resume(&status))?;
            let incoming = outgoing.resumed(stream, COMMAND_BYTES).await;
            incoming.map(Connected::Again).map_err(|status| Failure::to_resume(&status))
        })
    }

    fn trying(attempt: impl Future<Output = Result<Connected, Failure>> + Send + 'static) -> Link {
        let late = || Failure::Lost(format!("it did not answer within {} s", ANSWER_TIMEOUT.as_secs()));
        Link::Tries(Box::pin(async move { timeout(ANSWER_TIMEOUT, attempt).await.unwrap_or_else(|_| Err(late())) }))
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Link::Up(_))
    }

    /// When the next try begins.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Link::Waits(until) => Some(*until),
            _ => None,
        }
    }

    /// The next thing that is heard; for ever if nothing is tried. May be dropped without losing anything.
    pub(super) async fn next(&mut self) -> Heard {
        match self {
            Link::Waits(_) => std::future::pending().await,
            Link::Tries(attempt) => match attempt.await {
                Ok(connected) => Heard::Connected(connected),
                Err(failure) => Heard::Failed(failure),
            },
            Link::Up(incoming) => match incoming.next().await {
                Ok(Some(commands)) => Heard::Commands(commands),
                Ok(None) => Heard::Ended,
                Err(status) => Heard::Failed(garbled(incoming, &status).unwrap_or_else(|| Failure::of(&status))),
            },
        }
    }
}

/// What it means that nothing more comes in, if that is because of what came.
fn garbled(incoming: &Incoming<AgentCommand>, status: &Status) -> Option<Failure> {
    incoming.is_garbled().then(|| Failure::Nonsense(status.message().to_owned()))
}

/// What the coordinator says first; returns its release.
fn welcome(command: AgentCommand) -> Result<String, Failure> {
    let Some(Command::Welcome(version)) = command.body else {
        return Err(Failure::Lost("its first message was not Welcome".to_owned()));
    };
    version::check("this agent", "the coordinator", Some(&version)).map_err(|status| Failure::of(&status))?;
    let Version { release, .. } = version;
    Ok(release)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Waits(_) => "Waits",
            Link::Tries(_) => "Tries",
            Link::Up(_) => "Up",
        })
    }
}
