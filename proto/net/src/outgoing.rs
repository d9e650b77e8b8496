//! The sending end of a session: a queue that keeps what may not have arrived.

use std::fmt;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use farpool_proto::v1::{Resume, Resumed};
use futures_core::Stream;
use tokio::sync::Notify;
use tonic::Status;

use crate::frame::{FRAME_BYTES, SessionMessage, WHOLE_BYTES};
use crate::frames::Frames;
use crate::incoming::Incoming;
use crate::session::{self, Queue, Session};
use crate::stream::{self, BoxStream};

/// The part of the peer's memory for a session that a frame may take. At `--memory 64MiB` that is 512 KiB: with frames
/// of 1 MiB, twenty clients that sent 1 MiB items took 55 s instead of 14 s.
const FRAMES_PART: u64 = 32;

/// The sending end of a session. All clones belong to the same session.
///
/// It accepts everything at once and never blocks. Callers check [`Outgoing::bytes`] or [`Outgoing::waiting`] to stay
/// within their bounds. When the last clone is dropped, the stream ends after all pushed messages. A connection stays
/// open until all its streams have ended.
///
/// What the peer has not acknowledged is kept, in case the connection is lost and another one replaces it.
pub struct Outgoing<M> {
    sender: Arc<Sender<M>>,
}

struct Sender<M> {
    session: Arc<Session<M>>,
}

/// Makes a session's queue, and the frames of its first connection. `drained` is notified whenever the size of all kept
/// messages, or of those that wait to be sent, has fallen to `low` bytes or less; and when the connection is lost.
pub fn outgoing<M: SessionMessage>(low: usize, drained: Arc<Notify>) -> (Outgoing<M>, Frames<M>) {
    let session = Arc::new(Session::new(low, drained));
    let frames = Frames::new(Arc::clone(&session), 0, None);
    (Outgoing { sender: Arc::new(Sender { session }) }, frames)
}

impl<M: SessionMessage> Outgoing<M> {
    /// Appends a message.
    pub fn push(&self, message: M) {
        self.extend([message]);
    }

    /// Appends messages.
    pub fn extend(&self, messages: impl IntoIterator<Item = M>) {
        if let Some(queue) = self.put(messages) {
            session::wake(queue);
        }
    }

    /// Appends messages that may wait: they travel in the next frame, but cause none. The caller calls
    /// [`Outgoing::flush`] some time later.
    pub fn extend_later(&self, messages: impl IntoIterator<Item = M>) {
        drop(self.put(messages));
    }

    /// Sends messages that wait for a frame.
    pub fn flush(&self) {
        self.session().wake();
    }

    fn put(&self, messages: impl IntoIterator<Item = M>) -> Option<MutexGuard<'_, Queue<M>>> {
        let mut queue = self.session().queue();
        if queue.end.is_some() {
            return None;
        }
        for message in messages {
            let size = message.encoded_len();
            queue.push(message, size);
        }
        Some(queue)
    }

    /// Returns the bytes of all messages that the peer has not acknowledged, with their overhead.
    ///
    /// They decrease only while the [`Incoming`] of the session is read, which receives the acknowledgements. A caller
    /// that does not read it until there is less to send must wait for [`Outgoing::waiting`].
    pub fn bytes(&self) -> usize {
        self.session().queue().size
    }

    /// Sets the window: no further message begins while this many bytes or more are sent and not acknowledged. It is
    /// at least 1 MiB, since the peer need not acknowledge the last 512 KiB.
    pub fn set_window(&self, bytes: usize) {
        self.session().queue().window = bytes.max(2 * session::UNACKNOWLEDGED_BYTES);
        self.session().wake();
    }

    /// Sets how much memory the peer has for this session. Messages larger than a small part of it are sent in pieces:
    /// a peer whose memory is full still reads frames for their acknowledgements, and large frames make it read more.
    pub fn set_frame_budget(&self, peer_window: u64) {
        let whole = usize::try_from(peer_window / FRAMES_PART).unwrap_or(usize::MAX);
        self.session().queue().whole = whole.clamp(FRAME_BYTES, WHOLE_BYTES);
    }

    /// Returns the bytes of the messages that are in no frame of this connection yet, with their overhead.
    pub fn waiting(&self) -> usize {
        self.session().queue().waiting()
    }

    /// Sets the size up to which the queue counts as drained: see [`outgoing`].
    pub fn set_low(&self, bytes: usize) {
        self.session().queue().low = bytes;
    }

    /// Returns how many messages were pushed since the session's start.
    pub fn pushed(&self) -> u64 {
        self.session().queue().pushed
    }

    /// Returns how many of the pushed messages the peer has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.session().queue().acknowledged
    }

    /// Returns how many messages of the peer were received since the session's start.
    pub fn received(&self) -> u64 {
        self.session().state().received
    }

    /// Acknowledges at once, even if there is nothing else to send.
    pub fn acknowledge(&self) {
        self.session().state().acknowledge_soon();
        self.session().wake();
    }

    /// Whether the connection is lost and not replaced yet.
    pub fn is_gone(&self) -> bool {
        self.session().queue().gone
    }

    /// Gives the session up: its frames end at once, even if messages wait. Returns how many of the pushed messages
    /// have been in frames, on any connection: none of the others can have arrived.
    pub fn abandon(&self) -> u64 {
        let session = self.session();
        let mut state = session.state();
        // As if another connection replaced it.
        state.connection += 1;
        let framed = state.kept.framed();
        drop(state);
        session.wake();
        framed
    }

    /// Ends the stream after all pushed messages.
    pub fn finish(&self) {
        self.session().end(Ok(()));
    }

    /// Ends the stream with an error after all pushed messages. A client's stream just ends.
    pub fn fail(&self, status: Status) {
        self.session().end(Err(status));
    }

    /// Returns the receiving end of the session, for the current connection. It accepts messages of up to `limit`
    /// bytes.
    pub fn incoming<In: SessionMessage>(
        &self,
        stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
        limit: u64,
    ) -> Incoming<In> {
        let connection = self.session().state().connection;
        Incoming::new(Box::pin(stream), limit, self.session().clone(), connection)
    }

    pub(crate) fn session(&self) -> &Arc<Session<M>> {
        &self.sender.session
    }
}

impl<M: SessionMessage<Handshake = Resumed>> Outgoing<M> {
    /// Replaces the connection by a new one, which began with a Resume. The frames of the old one end. The first new
    /// frame is the answer to the Resume; then what the peer has not received is resent.
    ///
    /// # Errors
    /// If the peer cannot have received this many messages. Then nothing has changed.
    pub fn reconnect(&self, received_by_peer: u64) -> Result<Frames<M>, Status> {
        let session = self.session();
        let mut state = session.state();
        session.resend_from(&mut state, received_by_peer)?;
        let (connection, received) = session.reconnect(&mut state);
        Ok(Frames::new(Arc::clone(session), connection, Some(Resumed { received })))
    }
}

impl<M: SessionMessage<Handshake = Resume>> Outgoing<M> {
    /// Replaces the connection by a new one, and returns its frames. Those of the old one end. The new ones begin with
    /// a Resume and continue when [`Outgoing::resumed`] has read the answer. `secret` is the session's.
    pub fn resume(&self, secret: Bytes) -> Frames<M> {
        let session = self.session();
        let mut state = session.state();
        let (connection, received) = session.reconnect(&mut state);
        state.awaits_answer = true;
        let resume = Resume { secret, version: Some(farpool_proto::version()), received };
        Frames::new(Arc::clone(session), connection, Some(resume))
    }

    /// Reads the answer to [`Outgoing::resume`]; from then on, what the peer has not received is resent. Returns the
    /// receiving end of the session, like [`Outgoing::incoming`]. There is no timeout.
    ///
    /// # Errors
    /// If the stream ends with one: NOT_FOUND if the peer does not know the session, or no longer does. If the first
    /// frame is not an answer, or an impossible one: INVALID_ARGUMENT.
    pub async fn resumed<In: SessionMessage<Handshake = Resumed>>(
        &self,
        stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
        limit: u64,
    ) -> Result<Incoming<In>, Status> {
        let session = self.session();
        let connection = session.state().connection;
        let mut stream: BoxStream<In> = Box::pin(stream);
        let received = stream::answer::<In>(&mut stream).await?;
        let mut state = session.state();
        if state.connection != connection || !state.awaits_answer {
            return Err(stream::replaced());
        }
        session.resend_from(&mut state, received)?;
        state.awaits_answer = false;
        session.wake();
        drop(state);
        Ok(Incoming::new(stream, limit, session.clone(), connection))
    }
}

impl<M> Drop for Sender<M> {
    fn drop(&mut self) {
        let mut state = self.session.state();
        if state.awaits_answer {
            // The reader is gone.
            state.connection += 1;
        }
        drop(state);
        self.session.end(Ok(()));
    }
}

impl<M> Clone for Outgoing<M> {
    fn clone(&self) -> Self {
        Self { sender: Arc::clone(&self.sender) }
    }
}

impl<M> fmt::Debug for Outgoing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("bytes", &self.sender.session.queue().size).finish_non_exhaustive()
    }
}
