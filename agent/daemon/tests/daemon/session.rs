//! Sessions of the coordinator that the test plays, and the connections that they go over.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_net::{Incoming, Opening, Outgoing, Replies, outgoing};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentFrame, CommandFrame, Resume};
use futures_core::Stream;
use tokio::sync::{Notify, oneshot};
use tonic::{Status, Streaming};

use crate::coordinator::{Arrival, Made};

const LIMIT: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(10);

/// A session that was accepted.
pub(crate) struct Session {
    incoming: Incoming<AgentEvent>,
    events: VecDeque<Event>,
    outgoing: Outgoing<AgentCommand>,
    cut: oneshot::Sender<()>,
}

impl Arrival {
    /// Gives it a session in which it has not been welcomed yet.
    pub(crate) fn accept(self) -> Session {
        let (outgoing, frames) = outgoing(0, Arc::new(Notify::new()));
        let (replies, cut) = Cuttable::new(frames.into());
        let _ = self.reply.send(Ok(Box::pin(replies)));
        Session { incoming: outgoing.incoming(self.events, LIMIT), events: VecDeque::new(), outgoing, cut }
    }

    /// Has it go on with this session.
    pub(crate) async fn resume(self, session: &mut Session) {
        let opening = Opening::read(self.events, LIMIT, PATIENCE).await.expect("it says something");
        let Opening::Resume { resume, rest } = opening else { panic!("it has a session to go on with") };
        let frames = session.outgoing.reconnect(resume.received).expect("it has received what was sent");
        let (replies, cut) = Cuttable::new(frames.into());
        let _ = self.reply.send(Ok(Box::pin(replies)));
        session.incoming = rest.incoming(&session.outgoing);
        session.cut = cut;
    }

    /// It wants to go on with a session that is not known; returns what it says of it.
    pub(crate) async fn resumes_in_vain(self) -> Resume {
        let opening = Opening::<AgentEvent>::read(self.events, LIMIT, PATIENCE).await.expect("it says something");
        let Opening::Resume { resume, .. } = opening else { panic!("it has a session to go on with") };
        let _ = self.reply.send(Err(Status::not_found("who is that?")));
        resume
    }

    pub(crate) fn refuse(self, status: Status) {
        let _ = self.reply.send(Err(status));
    }

    /// Sends it these frames, whatever they are, and then nothing more.
    pub(crate) fn say(self, frames: impl IntoIterator<Item = CommandFrame>) -> Streaming<AgentFrame> {
        let _ = self.reply.send(Ok(Box::pin(Made { items: frames.into_iter().collect(), ends: false })));
        self.events
    }
}

impl Session {
    pub(crate) fn send(&self, body: Command) {
        self.outgoing.push(AgentCommand { body: Some(body) });
    }

    /// Ends its connection, with no word to anybody.
    pub(crate) fn cut(&mut self) {
        let (nobody, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.cut, nobody).send(());
    }

    /// Ends the session with an error.
    pub(crate) fn fail(&self, status: Status) {
        self.outgoing.fail(status);
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Event {
        self.next().await.expect("the session goes on")
    }

    /// The next event; `None`: the agent has ended its side.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let events = self.incoming.next().await.expect("the agent keeps the protocol")?;
            self.events.extend(events.into_iter().filter_map(|event| event.body));
        }
        self.events.pop_front()
    }

    /// Takes these for the next events.
    pub(crate) fn put_back(&mut self, mut events: VecDeque<Event>) {
        events.append(&mut self.events);
        self.events = events;
    }

    /// Waits for the agent to have ended the session, however that came about.
    pub(crate) async fn is_over(&mut self) {
        while let Ok(Some(_)) = self.incoming.next().await {}
    }
}

/// What is sent on a connection until it is cut.
struct Cuttable {
    replies: Option<Replies<AgentCommand>>,
    /// None: nobody is left to cut it.
    cut: Option<oneshot::Receiver<()>>,
}

impl Cuttable {
    fn new(replies: Replies<AgentCommand>) -> (Cuttable, oneshot::Sender<()>) {
        let (sender, cut) = oneshot::channel();
        (Cuttable { replies: Some(replies), cut: Some(cut) }, sender)
    }
}

impl Stream for Cuttable {
    type Item = Result<CommandFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(cut) = &mut this.cut
            && let Poll::Ready(cut) = Pin::new(cut).poll(context)
        {
            this.cut = None;
            if cut.is_ok() {
                this.replies = None;
                return Poll::Ready(Some(Err(Status::unavailable("somebody has cut it"))));
            }
        }
        match &mut this.replies {
            Some(replies) => Pin::new(replies).poll_next(context),
            None => Poll::Ready(None),
        }
    }
}
