//! How a connection begins: with a new session, or with one that has lost its connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farpool_proto::v1::Resume;
use futures_core::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Status;

use crate::frame::{Parts, SessionMessage, Unpacker};
use crate::incoming::Incoming;
use crate::outgoing::Outgoing;
use crate::session::FrameCounts;
use crate::stream::{BoxStream, next, not_alone};

/// How the peer that connected begins.
#[derive(Debug)]
pub enum Opening<In: SessionMessage> {
    /// A new session with these first messages; there is at least one.
    New {
        /// Messages that arrived together. They count as received.
        messages: Vec<In>,
        /// The stream of further messages.
        rest: Rest<In>,
    },
    /// A session that existed before: see [`Outgoing::reconnect`].
    Resume {
        /// The session and its progress. The peer's version was not checked.
        resume: Resume,
        /// The stream of messages from then on.
        rest: Rest<In>,
    },
}

/// The rest of a connection that has begun.
pub struct Rest<In: SessionMessage> {
    stream: BoxStream<In>,
    limit: u64,
    begun: FrameCounts,
    room: Option<OwnedSemaphorePermit>,
}

/// Bounds for connections whose sessions have not begun.
#[derive(Clone, Debug)]
pub struct Openings {
    /// The largest first message, in bytes.
    pub largest: u64,
    /// Room for the rest of large first messages of all peers together, in KiB; peers without room wait.
    pub room: Arc<Semaphore>,
    /// How long a connection may take to begin.
    pub patience: Duration,
}

impl Openings {
    /// Makes bounds for openings of up to this many bytes, with one of the largest in flight at a time.
    pub fn new(largest: u64, patience: Duration) -> Self {
        Self { largest, room: Arc::new(Semaphore::new(kib(largest) as usize)), patience }
    }

    /// Waits for room for a message of this announced size.
    async fn admit(&self, total: u64) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if total > self.largest {
            return Ok(None);
        }
        let room = Arc::clone(&self.room).acquire_many_owned(kib(total)).await;
        room.map(Some).map_err(|_| Status::unavailable("no more sessions are accepted"))
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX))
}

impl<In: SessionMessage<Handshake = Resume>> Opening<In> {
    /// Reads the first frames of a stream, up to the first messages, each of up to `limit` bytes.
    ///
    /// # Errors
    /// If the peer sends nothing in time, or something invalid, or if the stream ends.
    pub async fn read(
        stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
        limit: u64,
        patience: Duration,
    ) -> Result<Self, Status> {
        Self::read_within(stream, limit, &Openings::new(limit, patience)).await
    }

    /// Reads the beginning of a stream, with bounds for the first message.
    ///
    /// # Errors
    /// See [`Opening::read`].
    pub async fn read_within(
        stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
        limit: u64,
        openings: &Openings,
    ) -> Result<Self, Status> {
        let patience = openings.patience;
        let late = || Status::deadline_exceeded(format!("no first message within {patience:?} of the session's start"));
        timeout(patience, Self::read_on(Box::pin(stream), limit, openings)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn read_on(mut stream: BoxStream<In>, limit: u64, openings: &Openings) -> Result<Self, Status> {
        let (mut unpacker, mut first, mut room) = (Unpacker::new(openings.largest), true, None);
        loop {
            let frame = next::<In>(&mut stream).await?;
            let frame = frame.ok_or_else(|| Status::invalid_argument("the session ended before its first message"))?;
            let Parts { messages, piece, received, handshake } = In::open(frame);
            if let Some(resume) = handshake {
                if !first || !messages.is_empty() || piece.is_some() || received > 0 {
                    return Err(not_alone("a Resume"));
                }
                return Ok(Opening::Resume {
                    resume,
                    rest: Rest { stream, limit, begun: FrameCounts::default(), room },
                });
            }
            if received > 0 {
                let message = format!("it says that it has received {received} messages, but the session starts here");
                return Err(Status::invalid_argument(message));
            }
            first = false;
            if let Some(piece) = &piece
                && room.is_none()
            {
                room = openings.admit(piece.total).await?;
            }
            let messages = unpacker.unpack::<In>(messages, piece)?;
            if !messages.is_empty() {
                let bytes = messages.iter().map(In::encoded_len).sum();
                let begun = FrameCounts { messages: messages.len() as u64, bytes, received: 0 };
                return Ok(Opening::New { messages, rest: Rest { stream, limit, begun, room } });
            }
        }
    }
}

impl<In: SessionMessage> Rest<In> {
    /// Takes the room reserved for the first message. Dropping the permit frees it.
    pub fn take_room(&mut self) -> Option<OwnedSemaphorePermit> {
        self.room.take()
    }

    /// Returns the receiving end of the session, on its current connection: the first one, or the one that
    /// [`Outgoing::reconnect`] has begun.
    pub fn incoming<Out: SessionMessage>(self, outgoing: &Outgoing<Out>) -> Incoming<In> {
        let session = outgoing.session();
        let connection = session.begin(&self.begun);
        Incoming::new(self.stream, self.limit, session.clone(), connection)
    }
}

impl<In: SessionMessage> fmt::Debug for Rest<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("begun", &self.begun).finish_non_exhaustive()
    }
}
