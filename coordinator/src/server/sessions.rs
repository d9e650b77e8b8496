//! Sessions at the edge: begun, and read turn by turn.

use std::net::SocketAddr;
use std::time::Duration;

use farpool_net::{Incoming, Outgoing, Replies, SessionMessage, outgoing};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, Streaming};

use super::greeting::Greeting;
use super::link::{Input, Joins, Link, Said};

/// What tells clients' sessions from agents'.
pub(super) struct Kind<Out, In, Id> {
    /// For the log.
    pub(super) name: &'static str,
    /// The largest message that it may send.
    pub(super) max_message: u64,
    /// It counts as drained when no more bytes than these are left to be sent.
    pub(super) low: usize,
    pub(super) joins: fn(Joins<Out, In, Id>) -> Input,
    pub(super) says: fn(Id, Said<In>) -> Input,
}

/// Answers the call that opens a session. What comes of it is said on the stream: a client may wait for the answer
/// before it sends anything.
pub(super) fn open<Out, In, Id>(
    request: Request<Streaming<In::Frame>>,
    link: &Link,
    kind: Kind<Out, In, Id>,
) -> Response<Replies<Out>>
where
    Out: SessionMessage,
    In: SessionMessage + Greeting,
    Id: Copy + Send + Sync + 'static,
{
    let address = request.remote_addr();
    let (outgoing, frames) = outgoing(kind.low, link.drained.clone());
    let incoming = outgoing.incoming(request.into_inner(), kind.max_message);
    tokio::spawn(attend(incoming, outgoing, address, link.clone(), kind));
    Response::new(frames.replies())
}

async fn attend<Out, In, Id>(
    mut incoming: Incoming<In>,
    outgoing: Outgoing<Out>,
    address: Option<SocketAddr>,
    link: Link,
    kind: Kind<Out, In, Id>,
) where
    Out: SessionMessage,
    In: SessionMessage + Greeting,
    Id: Copy,
{
    let messages = match first(&mut incoming, link.limits.first_message).await {
        Ok(messages) => messages,
        Err(status) => {
            link.log.line(format_args!("refused {} {}: {}", kind.name, from(address), status.message()));
            return outgoing.fail(status);
        }
    };
    let (turns, turn) = mpsc::channel(1);
    let (id, joined) = oneshot::channel();
    let joins = Joins { outgoing, turns, address, messages, id };
    if link.send((kind.joins)(joins)).await.is_ok()
        && let Ok(id) = joined.await
    {
        read(incoming, turn, link, |said| (kind.says)(id, said)).await;
    }
}

/// The messages that a session begins with.
async fn first<M: SessionMessage + Greeting>(incoming: &mut Incoming<M>, patience: Duration) -> Result<Vec<M>, Status> {
    let whole = async {
        loop {
            match incoming.next().await {
                Ok(Some(messages)) if messages.is_empty() => {}
                Ok(Some(messages)) => return Ok(messages),
                Ok(None) => return Err(Status::invalid_argument("the session ended before its first message")),
                Err(status) => return Err(blamed(status)),
            }
        }
    };
    let late = || Status::deadline_exceeded(format!("no first message within {patience:?} of the session's start"));
    let messages = timeout(patience, whole).await.unwrap_or_else(|_| Err(late()))?;
    messages.first().map_or(Ok(()), Greeting::check)?;
    Ok(messages)
}

/// Reads a frame a turn until the session ends or the loop ends it.
async fn read<M: SessionMessage>(
    mut incoming: Incoming<M>,
    mut turn: mpsc::Receiver<()>,
    link: Link,
    says: impl Fn(Said<M>) -> Input,
) {
    while turn.recv().await.is_some() {
        let next = tokio::select! {
            next = incoming.next() => next,
            // There is no second turn, so this is the end.
            _ = turn.recv() => return,
        };
        let said = match next {
            Ok(Some(messages)) => Said::Messages { messages, partial: incoming.held() },
            Ok(None) => Said::Gone(Ok(())),
            Err(status) => Said::Gone(Err(blamed(status))),
        };
        let gone = matches!(said, Said::Gone(_));
        if link.send(says(said)).await.is_err() || gone {
            return;
        }
    }
}

/// What cannot be decoded is the peer's fault, which gRPC's library does not say.
pub(super) fn blamed(status: Status) -> Status {
    match status.code() {
        Code::Internal => Status::invalid_argument(status.message().to_owned()),
        _ => status,
    }
}

/// Where a peer came from, for people.
pub(super) fn from(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "from nowhere".to_owned(), |address| format!("from {address}"))
}
