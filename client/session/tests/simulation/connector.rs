//! Connects a client to the coordinator.

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
use farpool_session::caller_driven::{Connect, Connection, DetachedConnection};
use futures_core::Stream;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::coordinator::Address;
use crate::network::{Arriving, Host, Network};
use crate::trace;

#[derive(Clone)]
pub(crate) struct ClientConnector {
    pub(crate) host: Host,
    pub(crate) network: Network,
    pub(crate) address: Address,
}

impl Connect for ClientConnector {
    type Connection = Self;

    async fn connect(&self) -> Result<Self, Status> {
        self.network.connect(self.host, || self.address.server().is_some()).await?;
        Ok(self.clone())
    }
}

/// Shows the client's notices in the trace.
pub(crate) struct ClientFront(pub(crate) Host);

impl Front for ClientFront {
    fn output(&self, _: &Output) {}

    fn notice(&self, line: &str) {
        trace::log(format_args!("client {} shows: {line}", self.0));
    }

    fn flush(&self, _: Duration) {}
}

impl Connection for ClientConnector {
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

impl DetachedConnection for ClientConnector {
    async fn describe(&mut self, name: String, id: Bytes) -> Result<DetachedJob, Status> {
        let describe = async |server: Server, request: DescribeDetachedRequest| server.describe_detached(request).await;
        self.call(DescribeDetachedRequest { name, id }, describe).await
    }

    async fn cancel(&mut self, name: String, id: Bytes) -> Result<(), Status> {
        let cancel = async |server: Server, request: CancelDetachedRequest| {
            server.cancel_detached(request).await.map(|()| CancelDetachedReply {})
        };
        self.call(CancelDetachedRequest { name, id, must_run: false }, cancel).await.map(drop)
    }

    async fn discard(&mut self, name: String, id: Bytes) -> Result<(), Status> {
        let discard = async |server: Server, request: DiscardDetachedRequest| {
            server.discard_detached(request).await.map(|()| DiscardDetachedReply {})
        };
        self.call(DiscardDetachedRequest { name, id }, discard).await.map(drop)
    }
}

impl ClientConnector {
    /// Makes a call with one message each way.
    async fn call<Request, Reply, Answer>(
        &self,
        request: Request,
        answer: impl FnOnce(Server, Request) -> Answer + Send + 'static,
    ) -> Result<Reply, Status>
    where
        Request: Message + Debug + 'static,
        Reply: Message + Debug + 'static,
        Answer: Future<Output = Result<Reply, Status>> + Send,
    {
        let accept = |mut requests: Arriving<Request>| {
            let server = self.address.server()?;
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(async move {
                if let Some(Ok(request)) = next(&mut requests).await {
                    let _ = sender.send(answer(server, request).await).await;
                }
            });
            Some(Answers(receiver))
        };
        let (sender, requests) = mpsc::channel(1);
        let _ = sender.try_send(request);
        drop(sender);
        let mut answers = self.network.call(self.host, Answers(requests), accept).await?;
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
