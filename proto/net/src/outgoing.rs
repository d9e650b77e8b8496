//! What is to be sent on a session: a queue that anybody may push to, and that keeps what may not have arrived.

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

/// The part of the peer's memory for a session that a frame may take. At `--memory 64MiB` that is 512 KiB: with frames of 1 MiB, twenty
/// clients that sent 1 MiB items took 55 s instead of 14 s.
const FRAMES_PART: u64 = 32;

/// The sending end of a session. All clones are of the same session.
///
/// It takes everything at once and never blocks; whoever pushes looks at [`Outgoing::bytes`] or [`Outgoing::waiting`] to
/// stay within its bounds. When the last clone is dropped, the stream ends behind what was pushed: a connection stays for
/// as long as one of its streams has not ended.
///
/// What the peer has not taken in is kept, for when the connection is lost and another one takes its place.
pub struct Outgoing<M> {
    sender: Arc<Sender<M>>,
}

struct Sender<M> {
    session: Arc<Session<M>>,
}

/// A session's queue, and the frames of its first connection. `drained` is notified whenever what the session holds, or
/// what of this waits to be sent, has become `low` bytes or less from more; and when nobody takes frames any more.
pub fn outgoing<M: SessionMessage>(low: usize, drained: Arc<Notify>) -> (Outgoing<M>, Frames<M>) {
    let session = Arc::new(Session::new(low, drained));
    let frames = Frames::new(Arc::clone(&session), 0, None);
    (Outgoing { sender: Arc::new(Sender { session }) }, frames)
}

impl<M: SessionMessage> Outgoing<M> {
    /// Puts a message behind the others.
    pub fn push(&self, message: M) {
        self.extend([message]);
    }

    /// Puts messages behind the others.
    pub fn extend(&self, messages: impl IntoIterator<Item = M>) {
        if let Some(queue) = self.put(messages) {
            session::wake(queue);
        }
    }

    /// Puts messages behind the others that may wait for company: they travel in the next frame, which is not made for
    /// them. Whoever calls this calls [`Outgoing::flush`] some time later.
    pub fn extend_later(&self, messages: impl IntoIterator<Item = M>) {
        drop(self.put(messages));
    }

    /// Sends what waits for company.
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

    /// Bytes of all messages that the peer has not taken in, as far as it has said, with what they take beside.
    ///
    /// They become less only as long as somebody reads the [`Incoming`] of the session, which is how the peer says so.
    /// Whoever does not read it until there is less to send waits for [`Outgoing::waiting`].
    pub fn bytes(&self) -> usize {
        self.session().queue().size
    }

    /// Has no further message begun while so many bytes or more are sent and not acknowledged. At least 1 MiB counts: the peer
    /// may be silent about less than that.
    pub fn set_window(&self, bytes: usize) {
        self.session().queue().window = bytes.max(2 * session::UNTOLD_BYTES);
        self.session().wake();
    }

    /// Sets how much memory the peer has for this session. Messages larger than a small part of it are sent in pieces. Acknowledgements
    /// wait behind the frames in flight, and a peer whose memory is full reads frames only for these: large frames make it read more.
    pub fn set_frames_for(&self, memory: u64) {
        let whole = usize::try_from(memory / FRAMES_PART).unwrap_or(usize::MAX);
        self.session().queue().whole = whole.clamp(FRAME_BYTES, WHOLE_BYTES);
    }

    /// Bytes of the messages that are in no frame of this connection yet, with what they take beside.
    pub fn waiting(&self) -> usize {
        self.session().queue().waiting()
    }

    /// Messages that were pushed since the session's start.
    pub fn pushed(&self) -> u64 {
        self.session().queue().pushed
    }

    /// Of the messages that were pushed, those that the peer has taken in, as it said last.
    pub fn acknowledged(&self) -> u64 {
        self.session().queue().acknowledged
    }

    /// Messages of the peer that were taken in since the session's start.
    pub fn received(&self) -> u64 {
        self.session().line().received
    }

    /// Has the peer told at once what was taken in, even if there is nothing else to say.
    pub fn acknowledge(&self) {
        self.session().line().hurry();
        self.session().wake();
    }

    /// Whether nobody takes frames: the connection is lost, and there is no other one yet.
    pub fn is_gone(&self) -> bool {
        self.session().queue().gone
    }

    /// Gives the session up: its frames end at once, whatever was pushed. Returns how many of the messages that were pushed
    /// have been in frames, of whatever connection: none of the others can have arrived.
    pub fn abandon(&self) -> u64 {
        let session = self.session();
        let mut line = session.line();
        // As if another one took its place.
        line.connection += 1;
        let framed = line.kept.framed();
        drop(line);
        session.wake();
        framed
    }

    /// Ends the stream behind what was pushed.
    pub fn finish(&self) {
        self.session().end(Ok(()));
    }

    /// Ends the stream with an error, behind what was pushed. A client's stream just ends.
    pub fn fail(&self, status: Status) {
        self.session().end(Err(status));
    }

    /// No other connection will take the place of the first one: nothing is kept for it, and [`Outgoing::bytes`] counts what
    /// waits to be sent.
    pub fn for_one_connection(&self) {
        self.session().line().only_one = true;
    }

    /// The receiving end of the session, for the connection that is in place: takes messages of up to `limit` bytes out
    /// of the peer's frames.
    pub fn incoming<In: SessionMessage>(
        &self,
        stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
        limit: u64,
    ) -> Incoming<In> {
        let connection = self.session().line().connection;
        Incoming::new(Box::pin(stream), limit, self.session().clone(), connection)
    }

    pub(crate) fn session(&self) -> &Arc<Session<M>> {
        &self.sender.session
    }
}

impl<M: SessionMessage<Handshake = Resumed>> Outgoing<M> {
    /// A new connection, which began with a Resume, takes the place of the old one, whose frames end. The answer to the
    /// Resume is the first frame; then comes what the peer has not taken in.
    ///
    /// # Errors
    /// If the peer cannot have taken in so many messages: then nothing has changed.
    pub fn reconnect(&self, received_by_peer: u64) -> Result<Frames<M>, Status> {
        let session = self.session();
        let mut line = session.line();
        session.go_back(&mut line, received_by_peer)?;
        let (connection, received) = session.reconnect(&mut line);
        Ok(Frames::new(Arc::clone(session), connection, Some(Resumed { received })))
    }
}

impl<M: SessionMessage<Handshake = Resume>> Outgoing<M> {
    /// The frames of a new connection, which takes the place of the old one, whose frames end. They begin with a Resume
    /// and go on when [`Outgoing::resumed`] has read the answer. `secret` is the
    /// session's.
    pub fn resume(&self, secret: Bytes) -> Frames<M> {
        let session = self.session();
        let mut line = session.line();
        let (connection, received) = session.reconnect(&mut line);
        line.awaits_answer = true;
        let resume = Resume { secret, version: Some(farpool_proto::version()), received };
        Frames::new(Arc::clone(session), connection, Some(resume))
    }

    /// Reads the answer to [`Outgoing::resume`]: from then on what the peer has not taken in is sent again. It gives the
    /// receiving end of the session, as [`Outgoing::incoming`] does. There is no limit to how long the peer may take.
    ///
    /// # Errors
    /// If the stream ends with one: NOT_FOUND if the peer does not know the session (any more). If the first frame is not
    /// an answer, or one that cannot be true: INVALID_ARGUMENT.
    pub async fn resumed<In: SessionMessage<Handshake = Resumed>>(
        &self,
        stream: impl Stream<Item = Result<In::Frame, Status>> + Send + 'static,
        limit: u64,
    ) -> Result<Incoming<In>, Status> {
        let session = self.session();
        let connection = session.line().connection;
        let mut stream: BoxStream<In> = Box::pin(stream);
        let received = stream::answer::<In>(&mut stream).await?;
        let mut line = session.line();
        if line.connection != connection || !line.awaits_answer {
            return Err(stream::replaced());
        }
        session.go_back(&mut line, received)?;
        line.awaits_answer = false;
        session.wake();
        drop(line);
        Ok(Incoming::new(stream, limit, session.clone(), connection))
    }
}

impl<M> Drop for Sender<M> {
    fn drop(&mut self) {
        let mut line = self.session.line();
        if line.awaits_answer {
            // Nobody will read it.
            line.connection += 1;
        }
        drop(line);
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
