//! Sessions at the edge: begun or resumed, and read turn by turn.

use farpool_common::log::warn;
use farpool_coordinator::{AgentId, ClientId};
use farpool_net::{
    Incoming, Opening, Openings, Replies, Reply, Rest, SessionMessage, outgoing, replies, session_id, version,
};
use farpool_proto::v1::{self, AgentCommand, AgentEvent, ClientEvent, ClientMessage};
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::end::{End, blamed};
use super::greeting::Greeting;
use super::link::{Input, Link, NewSession, ResumeRequest, Resumed, SessionEvent, SessionInput, address_for_log};
use super::origin::Caller;
use super::settings::Settings;

/// The differences between sessions of clients and agents.
#[derive(Clone)]
pub(super) struct Kind<Out: SessionMessage, In: SessionMessage, Id> {
    /// For the log.
    pub(super) name: &'static str,
    /// The peer's name in errors.
    pub(super) peer: &'static str,
    /// The largest message that it may send, and bounds for the first one.
    pub(super) max_message: u64,
    pub(super) openings: Openings,
    /// Its queue counts as drained when at most this many bytes remain to be sent.
    pub(super) low: usize,
    pub(super) begin: fn(NewSession<Out, In, Id>) -> Input,
    pub(super) resume: fn(ResumeRequest<Out, In, Id>) -> Input,
    pub(super) input: fn(SessionInput<In, Id>) -> Input,
}

/// The size limit of an agent's hello, which lists everything that the agent holds, in bytes.
const MAX_HELLO: u64 = 8 << 20;

impl Kind<ClientEvent, ClientMessage, ClientId> {
    pub(super) fn client(settings: &Settings) -> Self {
        Self {
            name: "client",
            peer: "the client",
            max_message: settings.max_message(),
            openings: Openings::new(settings.max_opening(), settings.limits.first_message),
            low: settings.low_queue(),
            begin: Input::NewClient,
            resume: Input::ResumeClient,
            input: Input::FromClient,
        }
    }
}

impl Kind<AgentCommand, AgentEvent, AgentId> {
    pub(super) fn agent(settings: &Settings) -> Self {
        Self {
            name: "agent",
            peer: "the agent",
            max_message: settings.max_report(),
            openings: Openings::new(MAX_HELLO, settings.limits.first_message),
            // The agents' credit bounds what they are sent; nobody waits for them to read it.
            low: usize::MAX,
            begin: Input::NewAgent,
            resume: Input::ResumeAgent,
            input: Input::FromAgent,
        }
    }
}

/// Answers the call that opens or resumes a session. The outcome is sent on the stream: a client may wait for the
/// answer before it sends anything.
pub(super) fn open<Out, In, Id>(
    stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
    caller: Caller,
    link: &Link,
    kind: Kind<Out, In, Id>,
) -> Replies<Out>
where
    Out: SessionMessage,
    In: SessionMessage<Handshake = v1::Resume> + Greeting,
    Id: Copy + Send + Sync + 'static,
{
    let (reply, replies) = replies();
    tokio::spawn(Edge { caller, link: link.clone(), kind }.serve(stream, reply));
    replies
}

/// One connection of a session.
struct Edge<Out: SessionMessage, In: SessionMessage, Id> {
    caller: Caller,
    link: Link,
    kind: Kind<Out, In, Id>,
}

impl<Out, In, Id> Edge<Out, In, Id>
where
    Out: SessionMessage,
    In: SessionMessage<Handshake = v1::Resume> + Greeting,
    Id: Copy,
{
    async fn serve(self, stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static, reply: Reply<Out>) {
        match Opening::read_within(stream, self.kind.max_message, &self.kind.openings).await {
            Ok(Opening::New { mut messages, rest }) => match messages.first_mut().map_or(Ok(()), Greeting::admit) {
                Ok(()) => self.begin(messages, rest, reply).await,
                Err(status) => self.refuse(reply, status),
            },
            Ok(Opening::Resume { resume, rest }) => {
                let checked = version::check("the coordinator", self.kind.peer, resume.version.as_ref());
                match checked.and_then(|()| session_id(&resume.secret)) {
                    Ok(id) => self.resume(id, resume.received, rest, reply).await,
                    Err(status) => self.refuse(reply, status),
                }
            }
            Err(status) => self.refuse(reply, blamed(status)),
        }
    }

    fn refuse(&self, reply: Reply<Out>, status: Status) {
        let (peer, address) = (self.kind.name, address_for_log(self.caller.address));
        warn!(self.link.log, peer, address, reason = status.message(), "session refused");
        reply.refuse(status);
    }

    async fn begin(self, messages: Vec<In>, mut rest: Rest<In>, reply: Reply<Out>) {
        let passed = self.caller.meter.passed(rest.take_room());
        let (outgoing, frames) = outgoing(self.kind.low, self.link.drained.clone());
        let incoming = rest.incoming(&outgoing);
        reply.with(frames);
        let (turns, turn) = mpsc::channel(1);
        let (id, joined) = oneshot::channel();
        let Caller { principal, address, .. } = self.caller.clone();
        let new = NewSession { outgoing, turns, principal, address, messages, passed, id };
        if self.link.send((self.kind.begin)(new)).await.is_ok()
            && let Ok(id) = joined.await
        {
            self.read(Resumed { id, connection: 0, incoming }, turn).await;
        }
    }

    async fn resume(self, id: [u8; 16], received: u64, rest: Rest<In>, reply: Reply<Out>) {
        let (turns, turn) = mpsc::channel(1);
        let (resumed, answer) = oneshot::channel();
        let passed = self.caller.meter.passed(None);
        let Caller { principal, address, .. } = self.caller.clone();
        let request = ResumeRequest { id, received, rest, reply, turns, principal, address, passed, resumed };
        if self.link.send((self.kind.resume)(request)).await.is_ok()
            && let Ok(session) = answer.await
        {
            self.read(session, turn).await;
        }
    }

    /// Reads a frame per turn until the stream ends or the loop ends it.
    async fn read(self, session: Resumed<In, Id>, mut turn: mpsc::Receiver<()>) {
        let Resumed { id, connection, mut incoming } = session;
        while turn.recv().await.is_some() {
            let next = tokio::select! {
                biased;
                // There is no second turn, so this is the end.
                _ = turn.recv() => return,
                next = incoming.next() => next,
            };
            let event = received(&mut incoming, next);
            let gone = matches!(event, SessionEvent::Gone(_));
            let passed = Some(self.caller.meter.passed(None));
            if self.link.send((self.kind.input)(SessionInput { id, connection, event, passed })).await.is_err() || gone
            {
                return;
            }
        }
    }
}

fn received<In: SessionMessage>(
    incoming: &mut Incoming<In>,
    next: Result<Option<Vec<In>>, Status>,
) -> SessionEvent<In> {
    match next {
        Ok(Some(messages)) => SessionEvent::Messages { messages, partial: incoming.held() },
        Ok(None) => SessionEvent::Gone(End::Intended),
        Err(status) => SessionEvent::Gone(End::of(status, incoming.peer_broke_protocol())),
    }
}
