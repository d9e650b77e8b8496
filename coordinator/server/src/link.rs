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

/// All inputs of the loop, apart from timers and drained queues.
pub(super) enum Input {
    NewClient(NewSession<ClientEvent, ClientMessage, ClientId>),
    ResumeClient(ResumeRequest<ClientEvent, ClientMessage, ClientId>),
    FromClient(SessionInput<ClientMessage, ClientId>),
    NewAgent(NewSession<AgentCommand, AgentEvent, AgentId>),
    ResumeAgent(ResumeRequest<AgentCommand, AgentEvent, AgentId>),
    FromAgent(SessionInput<AgentEvent, AgentId>),
    /// Data was read for a detached job.
    ReadDone(ReadResult),
    Control(ControlRequest),
    /// Asks how many programs have arrived so far.
    ProgramsArrived(oneshot::Sender<u64>),
    /// An agent needs a program that was missing when this many had arrived. Answered when it may have arrived, or when
    /// no client can send it.
    ProgramNeeded(Digest, u64, oneshot::Sender<Result<(), Status>>),
    /// A client begins to send a program; the answer is whether it may.
    UploadBegins(Digest, oneshot::Sender<Result<(), Status>>),
    UploadEnds(Digest, Result<(), Status>),
}

/// The cost of beginning a session, in messages: all state is checked for it.
const BEGINNING: usize = 64;

impl Input {
    /// Returns the cost of handling it, in messages.
    pub(super) fn messages(&self) -> usize {
        match self {
            Self::FromClient(input) => input.messages(),
            Self::FromAgent(input) => input.messages(),
            Self::NewClient(new) => BEGINNING + new.messages.len(),
            Self::NewAgent(new) => BEGINNING + new.messages.len(),
            _ => 1,
        }
    }
}

impl<In, Id> SessionInput<In, Id> {
    fn messages(&self) -> usize {
        match &self.event {
            SessionEvent::Messages { messages, .. } => messages.len(),
            SessionEvent::Gone(_) => 1,
        }
    }
}

/// A valid new session. It sends `In` and receives `Out`.
pub(super) struct NewSession<Out, In, Id> {
    pub(super) outgoing: Outgoing<Out>,
    /// Gives the session its turns to be read. Dropping it stops the reading.
    pub(super) turns: mpsc::Sender<()>,
    pub(super) principal: Principal,
    pub(super) address: Option<SocketAddr>,
    pub(super) messages: Vec<In>,
    pub(super) passed: Passed,
    /// Not answered if the session is refused.
    pub(super) id: oneshot::Sender<Id>,
}

/// The request of a new connection to resume a session.
pub(super) struct ResumeRequest<Out: SessionMessage, In: SessionMessage, Id> {
    /// The id derived from the secret.
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

/// The messages that a session received in one turn.
pub(super) struct SessionInput<In, Id> {
    pub(super) id: Id,
    /// The connection's number in the session, from 0.
    pub(super) connection: u64,
    pub(super) event: SessionEvent<In>,
    /// `None`: it was counted when the session began.
    pub(super) passed: Option<Passed>,
}

pub(super) enum SessionEvent<In> {
    /// The messages of a frame, and how many bytes of a partial message are held.
    Messages { messages: Vec<In>, partial: usize },
    /// The stream has ended.
    Gone(End),
}

/// Data that the loop has requested.
pub(super) enum ReadResult {
    /// The messages that opened a detached job, by the store's number.
    Opening(u64, Result<Opening, ReadError>),
    /// Items for the pool of a detached job.
    Items(ClientId, Read<Items>),
    /// Outcomes for an attached client.
    Outcomes(ClientId, Read<Outcomes>),
    /// A detached job's program, which is durable; `None`: the coordinator lacks it.
    Program(u64, Result<Option<InUse>, Status>),
}

/// Requests of operators and of users of detached jobs, with their principals.
pub(super) enum ControlRequest {
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
    /// Notified when a client's queue has run low, or has lost its reader.
    pub(super) drained: Arc<Notify>,
    pub(super) log: Log,
    pub(super) limits: Limits,
    pub(super) blocking: Blocking,
    pub(super) meters: Meters,
}

impl Link {
    /// Sends an input to the loop as soon as it has room.
    pub(super) async fn send(&self, input: Input) -> Result<(), Status> {
        self.inputs.send(input).await.map_err(|_| shutting_down())
    }

    /// Runs a read, and sends the result to the loop.
    pub(super) fn read<T: Send + 'static>(
        &self,
        reading: Reading<T>,
        to_result: impl FnOnce(T) -> ReadResult + Send + 'static,
    ) {
        let link = self.clone();
        tokio::spawn(async move {
            let read = reading.await;
            let _ = link.send(Input::ReadDone(to_result(read))).await;
        });
    }

    /// Sends a request to the loop and waits for its answer.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| shutting_down())
    }
}

/// Returns a peer's address for the log; a peer in this process has none.
pub(super) fn address_for_log(address: Option<SocketAddr>) -> Option<DisplayValue<SocketAddr>> {
    address.map(display)
}
