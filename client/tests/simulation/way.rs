//! A client's way to the coordinator.

use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farpool_coordinator_server::Server;
use farpool_net::Frames;
use farpool_programs::Pieces;
use farpool_proto::v1::{
    CancelDetachedReply, CancelDetachedRequest, ClientMessage, DescribeDetachedRequest, DetachedJob,
    DiscardDetachedReply, DiscardDetachedRequest, EventFrame, Output,
};
use farpool_session::Front;
use farpool_session::by_hand::{Connect, Connection, DetachedConnection};
use futures_core::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::coordinator::Address;
use crate::network::{Arriving, Host, Network};
use crate::trace;

#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) host: Host,
    pub(crate) network: Network,
    pub(crate) address: Address,
}

impl Connect for Way {
    type Connection = Self;

    async fn connect(&self) -> Result<Self, Status> {
        self.network.connect(self.host, || self.address.server().is_some()).await?;
        Ok(self.clone())
    }
}

/// What the client on this host shows its user.
pub(crate) struct Says(pub(crate) Host);

impl Front for Says {
    fn output(&self, _: &Output) {}

    fn notice(&self, line: &str) {
        trace::say(format_args!("client {} says: {line}", self.0));
    }

    fn flush(&self, _: Duration) {}
}

impl Connection for Way {
    type Events = Arriving<EventFrame>;

    async fn session(&mut self, frames: Frames<ClientMessage>) -> Result<Self::Events, Status> {
        let accept = |stream| self.address.server().map(|server| server.client_session(stream));
        self.network.call(self.host, frames, accept).await
    }

    fn put_program(&mut self, _: Pieces) -> impl Future<Output = bool> + Send + 'static {
        trace::violation(format_args!("client {} is asked for its program", self.host));
        std::future::ready(true)
    }
}

impl DetachedConnection for Way {
    async fn describe(&mut self, name: String, id: Bytes) -> Result<DetachedJob, Status> {
        let describe = async |server: Server, request: DescribeDetachedRequest| server.describe_detached(request).await;
        self.ask(DescribeDetachedRequest { name, id }, describe).await
    }

    async fn cancel(&mut self, name: String, id: Bytes) -> Result<(), Status> {
        let cancel = async |server: Server, request: CancelDetachedRequest| {
            server.cancel_detached(request).await.map(|()| CancelDetachedReply {})
        };
        self.ask(CancelDetachedRequest { name, id, must_run: false }, cancel).await.map(drop)
    }

    async fn discard(&mut self, name: String, id: Bytes) -> Result<(), Status> {
        let discard = async |server: Server, request: DiscardDetachedRequest| {
            server.discard_detached(request).await.map(|()| DiscardDetachedReply {})
        };
        self.ask(DiscardDetachedRequest { name, id }, discard).await.map(drop)
    }
}

impl Way {
    /// A call with one message each way.
    async fn ask<Request, Reply, Answer>(
        &self,
        request: Request,
        answer: impl FnOnce(Server, Request) -> Answer + Send + 'static,
    ) -> Result<Reply, Status>
    where
        Request: Message + Debug + 'static,
        Reply: Message + Debug + 'static,
        Answer: Future<Output = Result<Reply, Status>> + Send,
    {
        let accept = |mut asked: Arriving<Request>| {
            let server = self.address.server()?;
            let (tell, told) = mpsc::channel(1);
            tokio::spawn(async move {
                if let Some(Ok(request)) = next(&mut asked).await {
                    let _ = tell.send(answer(server, request).await).await;
                }
            });
            Some(Answers(told))
        };
        let (say, said) = mpsc::channel(1);
        let _ = say.try_send(request);
        drop(say);
        let mut answers = self.network.call(self.host, Answers(said), accept).await?;
        next(&mut answers).await.unwrap_or_else(|| Err(Status::unavailable("there was no answer")))
    }
}

struct Answers<T>(mpsc::Receiver<T>);

impl<T> Stream for Answers<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
