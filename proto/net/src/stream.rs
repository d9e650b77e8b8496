//! The frames of a peer, one after the other, and what is said of those that cannot be.

use std::future::poll_fn;
use std::pin::Pin;

use farpool_proto::v1::Resumed;
use futures_core::Stream;
use tonic::Status;

use crate::frame::{Parts, SessionMessage};

pub(crate) type BoxStream<M> = Pin<Box<dyn Stream<Item = Result<<M as SessionMessage>::Frame, Status>> + Send>>;

/// Reads the answer to a Resume: how many messages the peer has taken in.
pub(crate) async fn answer<In>(stream: &mut BoxStream<In>) -> Result<u64, Status>
where
    In: SessionMessage<Handshake = Resumed>,
{
    let frame = next::<In>(stream).await?;
    let frame = frame.ok_or_else(|| Status::unavailable("the connection ended before the session resumed"))?;
    match In::open(frame) {
        Parts { messages, piece: None, received: 0, handshake: Some(resumed) } if messages.is_empty() => {
            Ok(resumed.received)
        }
        Parts { handshake: Some(_), .. } => Err(not_alone("a Resumed")),
        Parts { handshake: None, .. } => Err(Status::invalid_argument("its first frame does not answer the Resume")),
    }
}

pub(crate) async fn next<M: SessionMessage>(stream: &mut BoxStream<M>) -> Result<Option<M::Frame>, Status> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await.transpose()
}

/// What a peer is told that says how a connection begins in the middle of it, or beside something else.
pub(crate) fn not_alone(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is not alone in the first frame"))
}

/// What those are told who hold on to a connection that another one has taken the place of.
pub(crate) fn replaced() -> Status {
    Status::aborted("the session continues on another connection")
}
