//! What is to be sent on a session: a queue that anybody may push to, and the stream of frames that gRPC takes from it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::Notify;
use tonic::Status;

use crate::frame::{Packer, SessionMessage};

/// The sending end of a session. All clones are of the same session.
///
/// It takes everything at once and never blocks; whoever pushes looks at [`Outgoing::bytes`] to stay within its bounds.
/// When the last clone is dropped, the stream ends behind what was pushed: a connection stays for as long as one of its
/// streams has not ended.
pub struct Outgoing<M> {
    sender: Arc<Sender<M>>,
}

struct Sender<M> {
    shared: Arc<Shared<M>>,
}

/// The frames of a session, as a client sends them.
pub struct Frames<M> {
    shared: Arc<Shared<M>>,
    /// Taken from the queue and not in a frame yet: frames are made without the lock, so that nobody who pushes waits.
    taken: VecDeque<(M, usize)>,
    packer: Packer,
}

/// The frames of a session, as a server sends them: they can end in an error.
pub struct Replies<M> {
    frames: Frames<M>,
}

struct Shared<M> {
    state: Mutex<State<M>>,
    low: usize,
    drained: Arc<Notify>,
}

struct State<M> {
    /// Each with its encoded size.
    messages: VecDeque<(M, usize)>,
    /// Of all that was pushed and is in no frame yet.
    bytes: usize,
    count: usize,
    end: Option<Result<(), Status>>,
    /// Nobody will ever take a frame again.
    gone: bool,
    waker: Option<Waker>,
}

/// A session's queue, and the stream that empties it. `drained` is notified whenever fewer than `low` bytes, or as many,
/// are left of more.
pub fn outgoing<M: SessionMessage>(low: usize, drained: Arc<Notify>) -> (Outgoing<M>, Frames<M>) {
    let state = State { messages: VecDeque::new(), bytes: 0, count: 0, end: None, gone: false, waker: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), low, drained });
    let sender = Arc::new(Sender { shared: Arc::clone(&shared) });
    (Outgoing { sender }, Frames { shared, taken: VecDeque::new(), packer: Packer::default() })
}

impl<M: SessionMessage> Outgoing<M> {
    /// Puts a message behind the others.
    pub fn push(&self, message: M) {
        self.extend([message]);
    }

    /// Puts messages behind the others.
    pub fn extend(&self, messages: impl IntoIterator<Item = M>) {
        let mut state = self.state();
        if state.gone || state.end.is_some() {
            return;
        }
        for message in messages {
            let size = message.encoded_len();
            state.bytes += size;
            state.count += 1;
            state.messages.push_back((message, size));
        }
        wake(state);
    }

    /// Bytes that wait to be sent, with what their messages take beside.
    pub fn bytes(&self) -> usize {
        self.state().held()
    }

    /// Whether the other side takes no frames any more.
    pub fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Ends the stream behind what was pushed.
    pub fn finish(&self) {
        self.sender.end(Ok(()));
    }

    /// Ends the stream with an error, behind what was pushed. A client's stream just ends.
    pub fn fail(&self, status: Status) {
        self.sender.end(Err(status));
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        self.sender.shared.state()
    }
}

impl<M> Sender<M> {
    fn end(&self, end: Result<(), Status>) {
        let mut state = self.shared.state();
        state.end.get_or_insert(end);
        wake(state);
    }
}

impl<M> Drop for Sender<M> {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

impl<M> Clone for Outgoing<M> {
    fn clone(&self) -> Self {
        Self { sender: Arc::clone(&self.sender) }
    }
}

impl<M: SessionMessage> Frames<M> {
    /// The same, for a server.
    pub fn replies(self) -> Replies<M> {
        Replies { frames: self }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<M::Frame, Status>>> {
        if self.taken.is_empty() && !self.packer.has_rest() {
            let mut state = self.shared.state();
            std::mem::swap(&mut self.taken, &mut state.messages);
            if self.taken.is_empty() {
                return match &mut state.end {
                    Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
                    None => {
                        state.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                };
            }
        }
        let count = self.taken.len();
        let (frame, packed) = self.packer.pack(&mut self.taken);
        let mut state = self.shared.state();
        let before = state.held();
        state.bytes -= packed;
        state.count -= count - self.taken.len();
        let drained = before > self.shared.low && state.held() <= self.shared.low;
        drop(state);
        if drained {
            self.shared.drained.notify_one();
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

// Nothing in it is ever pinned.
impl<M> Unpin for Frames<M> {}

impl<M: SessionMessage> Stream for Frames<M> {
    type Item = M::Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M::Frame>> {
        self.get_mut().poll_frame(context).map(|frame| frame.and_then(Result::ok))
    }
}

impl<M: SessionMessage> Stream for Replies<M> {
    type Item = Result<M::Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().frames.poll_frame(context)
    }
}

impl<M> Drop for Frames<M> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.gone = true;
        (state.bytes, state.count) = (0, 0);
        let unsent = std::mem::take(&mut state.messages);
        drop(state);
        drop(unsent);
        self.shared.drained.notify_one();
    }
}

impl<M> Shared<M> {
    fn state(&self) -> MutexGuard<'_, State<M>> {
        // The state is whole between any two statements: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> State<M> {
    /// Small messages take more in memory than on the wire.
    fn held(&self) -> usize {
        self.bytes + self.count * size_of::<(M, usize)>()
    }
}

/// Wakes whoever waits for a frame, once the lock is free.
fn wake<M>(mut state: MutexGuard<'_, State<M>>) {
    let waker = state.waker.take();
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

impl<M> fmt::Debug for Outgoing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("bytes", &self.sender.shared.state().bytes).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Frames<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Replies<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").finish_non_exhaustive()
    }
}
