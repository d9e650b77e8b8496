//! A coordinator within reach: no network is between.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use farpool_net::Frames;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{AgentEvent, AgentFrame, AgentHello};
use farpool_testkit::coordinator::{Arrival, Session};
use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tonic::Status;

use super::super::{Connect, Connecting};

/// What agents connect through.
pub(super) struct Wire(pub(super) mpsc::UnboundedSender<Call>);

/// Somebody who wants a connection.
pub(super) struct Call(Arrival<Sent>);

impl Connect for Wire {
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting {
        let (reply, replied) = oneshot::channel();
        let _ = self.0.send(Call(Arrival { events: Sent(frames), reply }));
        Box::pin(
            async move { replied.await.unwrap_or_else(|_| Err(Status::unavailable("the test has dropped the call"))) },
        )
    }
}

/// A session from the coordinator's side. Its connection ends with it.
pub(super) struct Peer(Session);

impl Call {
    /// A session begins.
    pub(super) async fn accept(self) -> (Peer, AgentHello) {
        let (session, hello) = self.0.welcome().await;
        settle().await;
        (Peer(session), hello)
    }

    /// The session goes on.
    pub(super) async fn resume(self, peer: &mut Peer) {
        self.0.resume(peer).await;
        settle().await;
    }

    /// The session is not known.
    pub(super) async fn refuse_to_resume(self) {
        self.0.resumes_in_vain().await;
    }

    /// There is no answer at all.
    pub(super) async fn ignore(self) {
        self.0.ignore().await;
    }
}

impl Peer {
    /// The next event; none: the connection has ended.
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
