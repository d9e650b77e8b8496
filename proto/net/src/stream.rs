//! Reads a peer's frames, and makes the errors for invalid ones.

use std::future::poll_fn;
use std::pin::Pin;

use farpool_proto::v1::Resumed;
use futures_core::Stream;
use tonic::Status;

use crate::frame::{Parts, SessionMessage};

pub(crate) type BoxStream<M> = Pin<Box<dyn Stream<Item = Result<<M as SessionMessage>::Frame, Status>> + Send>>;

/// Reads the answer to a Resume: how many messages the peer has received.
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

/// The error for a handshake in the middle of a connection, or together with something else.
pub(crate) fn not_alone(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is not alone in the first frame"))
}

/// The error for a connection that another one has replaced.
pub(crate) fn replaced() -> Status {
    Status::aborted("the session continues on another connection")
}
