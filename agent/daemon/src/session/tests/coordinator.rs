//! A fake coordinator, connected without a network.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_net::Frames;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentEvent, AgentFrame, AgentHello};
use farpool_testkit::coordinator::agents::{Arrival, Session};
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tonic::Status;

use super::super::{Connect, Connecting};

/// Passes connection attempts to the test.
pub(super) struct TestConnect(pub(super) mpsc::UnboundedSender<ConnectAttempt>);

/// An attempt of an agent to connect.
pub(super) struct ConnectAttempt(Arrival<EventStream>);

impl Connect for TestConnect {
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting {
        let (reply, replied) = oneshot::channel();
        let _ = self.0.send(ConnectAttempt(Arrival { events: EventStream(frames), reply }));
        Box::pin(
            async move { replied.await.unwrap_or_else(|_| Err(Status::unavailable("the test has dropped the call"))) },
        )
    }
}

/// The coordinator's side of a session. Dropping it cuts its connection.
pub(super) struct Peer(Session);

impl ConnectAttempt {
    /// Accepts a new session.
    pub(super) async fn accept(self) -> (Peer, AgentHello) {
        let (session, hello) = self.0.welcome().await;
        settle().await;
        (Peer(session), hello)
    }

    /// Resumes the session.
    pub(super) async fn resume(self, peer: &mut Peer) {
        self.0.resume(peer).await;
        settle().await;
    }

    /// Answers that the session is unknown.
    pub(super) async fn refuse_resume(self) {
        self.0.refuse_resume().await;
    }

    /// Never answers.
    pub(super) async fn ignore(self) {
        self.0.ignore().await;
    }
}

impl Peer {
    /// Returns the next event; `None`: the connection has ended.
    pub(super) async fn event(&mut self) -> Option<Event> {
        self.0.try_next().await.ok().flatten()
    }
}

impl Deref for Peer {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Lets all tasks do what is due now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// The stream of an agent's frames.
struct EventStream(Frames<AgentEvent>);

impl Stream for EventStream {
    type Item = Result<AgentFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|frame| frame.map(Ok))
    }
}
