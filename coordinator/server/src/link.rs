//! Messages from the edge to the loop.

use std::net::SocketAddr;
use std::sync::Arc;

use farpool_common::log::Log;
use farpool_common::log::tracing::field::{DisplayValue, display};
use farpool_coordinator::{AgentId, ClientId, Principal};
use farpool_net::{Incoming, Outgoing, Reply, Rest, SessionMessage};
use farpool_programs::{Digest, InUse};
use farpool_proto::v1::{
    AgentCommand, AgentEvent, CancelDetachedRequest, ClientEvent, ClientMessage, DescribeDetachedRequest, DetachedJob,
    DiscardDetachedRequest,
};
use farpool_store::{Items, Opening, Outcomes, Read, ReadError, Reading};
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::Status;

use super::blocking::Blocking;
use super::end::End;
use super::meter::{Meters, Passed};
use super::published::Asker;
use super::refusal::shutting_down;
use super::settings::Limits;

/// All events for the server, except that time passes and queues drain.
pub(super) enum Input {
    ClientJoins(Joins<ClientEvent, ClientMessage, ClientId>),
    ClientResumes(Resumes<ClientEvent, ClientMessage, ClientId>),
    ClientSays(Says<ClientMessage, ClientId>),
    AgentJoins(Joins<AgentCommand, AgentEvent, AgentId>),
    AgentResumes(Resumes<AgentCommand, AgentEvent, AgentId>),
    AgentSays(Says<AgentEvent, AgentId>),
    /// Data that was read for a detached job.
    WasRead(WasRead),
    Asked(Question),
    /// Asks how many programs have arrived so far.
    ProgramsCame(oneshot::Sender<u64>),
    /// An agent needs a program that was missing when so many had arrived. Answered when it may have arrived, or when
    /// no client sends it.
    ProgramNeeded(Digest, u64, oneshot::Sender<Result<(), Status>>),
    /// A client begins to send a program; answered by whether it may.
    UploadBegins(Digest, oneshot::Sender<Result<(), Status>>),
    UploadEnds(Digest, Result<(), Status>),
}

/// The cost of a session's beginning in messages: everything is checked for it.
const BEGINNING: usize = 64;

impl Input {
    /// Returns the cost of handling it, in messages.
    pub(super) fn messages(&self) -> usize {
        match self {
            Self::ClientSays(says) => says.messages(),
            Self::AgentSays(says) => says.messages(),
            Self::ClientJoins(joins) => BEGINNING + joins.messages.len(),
            Self::AgentJoins(joins) => BEGINNING + joins.messages.len(),
            _ => 1,
        }
    }
}

impl<In, Id> Says<In, Id> {
    fn messages(&self) -> usize {
        match &self.said {
            Said::Messages { messages, .. } => messages.len(),
            Said::Gone(_) => 1,
        }
    }
}

/// A valid new session. It sends `In` and receives `Out`.
pub(super) struct Joins<Out, In, Id> {
    pub(super) outgoing: Outgoing<Out>,
    /// Gives the session its turns to be read; dropping it ends the reading.
    pub(super) turns: mpsc::Sender<()>,
    pub(super) principal: Principal,
    pub(super) address: Option<SocketAddr>,
    pub(super) messages: Vec<In>,
    pub(super) passed: Passed,
    /// Not answered if the session is refused.
    pub(super) id: oneshot::Sender<Id>,
}

/// A connection that wants to resume a session.
pub(super) struct Resumes<Out: SessionMessage, In: SessionMessage, Id> {
    /// The id of the secret.
    pub(super) id: [u8; 16],
    /// How many messages the peer has received.
    pub(super) received: u64,
    pub(super) rest: Rest<In>,
    pub(super) reply: Reply<Out>,
    pub(super) turns: mpsc::Sender<()>,
    pub(super) principal: Principal,
    pub(super) address: Option<SocketAddr>,
    pub(super) passed: Passed,
    /// Not answered if it is refused.
    pub(super) resumed: oneshot::Sender<Resumed<In, Id>>,
}

/// A connection that has resumed a session.
pub(super) struct Resumed<In: SessionMessage, Id> {
    pub(super) id: Id,
    pub(super) connection: u64,
    pub(super) incoming: Incoming<In>,
}

/// What a session received in one turn.
pub(super) struct Says<In, Id> {
    pub(super) id: Id,
    /// The connection's number in the session, from 0.
    pub(super) connection: u64,
    pub(super) said: Said<In>,
    /// None: it was counted with the session's beginning.
    pub(super) passed: Option<Passed>,
}

pub(super) enum Said<In> {
    /// The messages of a frame, and how many bytes are held of a partial one.
    Messages { messages: Vec<In>, partial: usize },
    /// The stream has ended.
    Gone(End),
}

/// Data that the loop has asked for.
pub(super) enum WasRead {
    /// The messages that opened a detached job, by the store's number.
    Opening(u64, Result<Opening, ReadError>),
    /// Items for the pool of a detached job.
    Items(ClientId, Read<Items>),
    /// Outcomes for an attached client.
    Outcomes(ClientId, Read<Outcomes>),
    /// A detached job's program, which is durable; none: it is not here.
    Program(u64, Result<Option<InUse>, Status>),
}

/// Requests of operators and of users of detached jobs, with the principal.
pub(super) enum Question {
    ListDetached(Principal, Asker),
    DescribeDetached(Principal, DescribeDetachedRequest, oneshot::Sender<Result<DetachedJob, Status>>),
    CancelDetached(Principal, CancelDetachedRequest, oneshot::Sender<Result<(), Status>>),
    DiscardDetached(Principal, DiscardDetachedRequest, oneshot::Sender<Result<(), Status>>),
    Status(Asker),
    CancelJob(Principal, String, oneshot::Sender<Result<(), Status>>),
    /// Answered with the agent's id.
    DrainAgent(Principal, String, oneshot::Sender<Result<String, Status>>),
}

/// Sends messages from the edge to the loop.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) inputs: mpsc::Sender<Input>,
    /// Notified when a client's queue has run low, or when nobody reads it any more.
    pub(super) drained: Arc<Notify>,
    pub(super) log: Log,
    pub(super) limits: Limits,
    pub(super) blocking: Blocking,
    pub(super) meters: Meters,
}

impl Link {
    /// Sends an input to the loop, as soon as it has room.
    pub(super) async fn send(&self, input: Input) -> Result<(), Status> {
        self.inputs.send(input).await.map_err(|_| shutting_down())
    }

    /// Runs a read, and sends the result to the loop.
    pub(super) fn read<T: Send + 'static>(
        &self,
        reading: Reading<T>,
        tell: impl FnOnce(T) -> WasRead + Send + 'static,
    ) {
        let link = self.clone();
        tokio::spawn(async move {
            let read = reading.await;
            let _ = link.send(Input::WasRead(tell(read))).await;
        });
    }

    /// Asks the loop and waits for its answer.
    pub(super) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply)).await?;
        answer.await.map_err(|_| shutting_down())
    }
}

/// Returns a peer's address for the log; a peer within this process has none.
pub(super) fn shown(address: Option<SocketAddr>) -> Option<DisplayValue<SocketAddr>> {
    address.map(display)
}
