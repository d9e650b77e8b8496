//! A coordinator within reach: no network is between.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_net::{Frames, Incoming, Opening, Outgoing, Replies, outgoing};
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentCommand, AgentEvent, AgentFrame, AgentHello, CommandFrame, Resume};
use futures_core::Stream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tonic::Status;

use super::super::{CommandFrames, Connect, Connecting};

const LIMIT: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(1);

/// What agents connect through.
pub(super) struct Wire(pub(super) mpsc::UnboundedSender<Call>);

/// Somebody who wants a connection.
pub(super) struct Call {
    frames: Frames<AgentEvent>,
    answer: oneshot::Sender<Result<CommandFrames, Status>>,
}

impl Connect for Wire {
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Call { frames, answer });
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(Status::unavailable("nobody is there"))) })
    }
}

/// A session from the coordinator's side.
pub(super) struct Peer {
    pub(super) outgoing: Outgoing<AgentCommand>,
    incoming: Incoming<AgentEvent>,
    events: VecDeque<Event>,
    cut: Option<oneshot::Sender<()>>,
}

impl Call {
    /// A session begins.
    pub(super) async fn accept(self) -> (Peer, AgentHello) {
        let (outgoing, frames) = outgoing(0, Arc::new(Notify::new()));
        let cut = answer(self.answer, frames.into());
        let incoming = outgoing.incoming(Sent(self.frames), LIMIT);
        let mut peer = Peer { outgoing, incoming, events: VecDeque::new(), cut };
        peer.say(Command::Welcome(farpool_proto::version()));
        match peer.event().await {
            Some(Event::Hello(hello)) => {
                settle().await;
                (peer, *hello)
            }
            other => panic!("an agent says hello first, not {other:?}"),
        }
    }

    /// The session goes on.
    pub(super) async fn resume(self, peer: &mut Peer) {
        let opening = Opening::read(Sent(self.frames), LIMIT, PATIENCE).await.expect("it says something");
        let Opening::Resume { resume, rest } = opening else { panic!("it has a session to go on with") };
        let frames = peer.outgoing.reconnect(resume.received).expect("it has received what was sent");
        peer.cut = answer(self.answer, frames.into());
        peer.incoming = rest.incoming(&peer.outgoing);
        settle().await;
    }

    /// The session is not known.
    pub(super) async fn refuse_to_resume(self) -> Resume {
        let opening = Opening::<AgentEvent>::read(Sent(self.frames), LIMIT, PATIENCE).await;
        let Opening::Resume { resume, .. } = opening.expect("it says something") else {
            panic!("it has a session to go on with")
        };
        let _ = self.answer.send(Err(Status::not_found("who is that?")));
        resume
    }

    /// There is no answer at all.
    pub(super) async fn ignore(self) {
        let Call { mut answer, frames } = self;
        answer.closed().await;
        drop(frames);
    }
}

impl Peer {
    pub(super) fn say(&self, command: Command) {
        self.outgoing.push(AgentCommand { body: Some(command) });
    }

    /// The next event; none: the connection has ended.
    pub(super) async fn event(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let events = self.incoming.next().await.ok()??;
            self.events.extend(events.into_iter().filter_map(|event| event.body));
        }
        self.events.pop_front()
    }

    pub(super) fn cut(&mut self) {
        if let Some(cut) = self.cut.take() {
            let _ = cut.send(());
        }
    }
}

fn answer(
    to: oneshot::Sender<Result<CommandFrames, Status>>,
    replies: Replies<AgentCommand>,
) -> Option<oneshot::Sender<()>> {
    let (sender, cut) = oneshot::channel();
    let frames: CommandFrames = Box::pin(Cuttable { replies, cut });
    let _ = to.send(Ok(frames));
    Some(sender)
}

/// Everybody does what there is to do now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// What an agent sends, as it arrives.
struct Sent(Frames<AgentEvent>);

impl Stream for Sent {
    type Item = Result<AgentFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|frame| frame.map(Ok))
    }
}

/// What is sent to an agent until it is cut, or nobody is there who could.
struct Cuttable {
    replies: Replies<AgentCommand>,
    cut: oneshot::Receiver<()>,
}

impl Stream for Cuttable {
    type Item = Result<CommandFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match Pin::new(&mut self.cut).poll(context) {
            Poll::Ready(_) => Poll::Ready(Some(Err(Status::unavailable("it was cut")))),
            Poll::Pending => Pin::new(&mut self.replies).poll_next(context),
        }
    }
}
