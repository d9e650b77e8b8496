//! The coordinator's side of sessions with agents, controlled by a test.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farpool_net::{Incoming, Opening, Outgoing, Replies, outgoing};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentFrame, AgentHello, CommandFrame, Drain, Resume};
use futures_core::Stream;
use tokio::sync::{Notify, oneshot};
use tonic::Status;

use crate::cuttable::{Cut, Cuttable};

/// The largest frame from an agent.
const LIMIT: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(10);

/// The frames that are sent on a connection.
pub type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// An agent that asks to open or resume a session.
pub struct Arrival<S> {
    /// The messages that it sends.
    pub events: S,
    /// Sends the answer.
    pub reply: oneshot::Sender<Result<Frames<CommandFrame>, Status>>,
}

/// An accepted session.
pub struct Session {
    outgoing: Outgoing<AgentCommand>,
    incoming: Incoming<AgentEvent>,
    events: VecDeque<Event>,
    cut: Cut<CommandFrame>,
    /// Whether it answers Draining, as a coordinator does.
    pub lets_leave: bool,
}

impl<S: Stream<Item = Result<AgentFrame, Status>> + Send + 'static> Arrival<S> {
    /// Opens a session without a welcome.
    pub fn accept(self) -> Session {
        let (outgoing, frames) = outgoing(0, Arc::new(Notify::new()));
        let (replies, cut) = Cuttable::new(Replies::from(frames));
        let _ = self.reply.send(Ok(Box::pin(replies)));
        let incoming = outgoing.incoming(self.events, LIMIT);
        Session { outgoing, incoming, events: VecDeque::new(), cut, lets_leave: true }
    }

    /// Opens a session and sends the welcome.
    pub async fn welcome(self) -> (Session, AgentHello) {
        let mut session = self.accept();
        session.send(Command::Welcome(farpool_proto::version()));
        match session.event().await {
            Event::Hello(hello) => (session, *hello),
            other => panic!("unexpected first event of an agent: {other:?}"),
        }
    }

    /// Lets the agent resume this session.
    pub async fn resume(self, session: &mut Session) {
        let opening = Opening::read(self.events, LIMIT, PATIENCE).await.expect("the agent sent no valid first message");
        let Opening::Resume { resume, rest } = opening else {
            panic!("the agent opens a session instead of resuming one")
        };
        let frames = session.outgoing.reconnect(resume.received).expect("the agent claims messages that were not sent");
        let (replies, cut) = Cuttable::new(Replies::from(frames));
        let _ = self.reply.send(Ok(Box::pin(replies)));
        session.incoming = rest.incoming(&session.outgoing);
        session.cut = cut;
    }

    /// Refuses to resume an unknown session. Returns the agent's request.
    pub async fn refuse_resume(self) -> Resume {
        let opening = Opening::<AgentEvent>::read(self.events, LIMIT, PATIENCE)
            .await
            .expect("the agent sent no valid first message");
        let Opening::Resume { resume, .. } = opening else {
            panic!("the agent opens a session instead of resuming one")
        };
        let _ = self.reply.send(Err(Status::not_found("unknown session")));
        resume
    }

    /// Refuses the session.
    pub fn refuse(self, status: Status) {
        let _ = self.reply.send(Err(status));
    }

    /// Does not answer, and waits until the agent closes the connection.
    pub async fn ignore(self) {
        let Arrival { events, mut reply } = self;
        reply.closed().await;
        drop(events);
    }
}

impl Session {
    /// Sends a command to the agent.
    pub fn send(&self, body: Command) {
        self.outgoing.push(AgentCommand { body: Some(body) });
    }

    /// Cuts the connection without a message.
    pub fn cut(&self) {
        self.cut.now();
    }

    /// Ends the session with an error.
    pub fn fail(&self, status: Status) {
        self.outgoing.fail(status);
    }

    /// Returns the next event.
    pub async fn event(&mut self) -> Event {
        self.next().await.expect("the session ended")
    }

    /// Returns the next event; `None`: the agent has ended its side.
    pub async fn next(&mut self) -> Option<Event> {
        self.try_next().await.expect("the agent violated the protocol")
    }

    /// Returns the next event, or how the connection was lost; `None`: the agent has ended its side.
    pub async fn try_next(&mut self) -> Result<Option<Event>, Status> {
        while self.events.is_empty() {
            let Some(events) = self.incoming.next().await? else { return Ok(None) };
            for event in events.into_iter().filter_map(|event| event.body) {
                if self.lets_leave && matches!(event, Event::Draining(_)) {
                    self.send(Command::Drain(Drain {}));
                }
                self.events.push_back(event);
            }
        }
        Ok(self.events.pop_front())
    }

    /// Returns the first result of `wanted` for an event; other events are kept for later calls.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        let mut others = VecDeque::new();
        loop {
            let event = self.event().await;
            match wanted(&event) {
                Some(found) => {
                    others.append(&mut self.events);
                    self.events = others;
                    return found;
                }
                None => others.push_back(event),
            }
        }
    }

    /// Waits until the agent has ended the session in any way.
    pub async fn is_over(&mut self) {
        while let Ok(Some(_)) = self.incoming.next().await {}
    }
}
