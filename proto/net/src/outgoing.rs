//! What is to be sent on a session: a queue that anybody may push to, and the stream of frames that gRPC takes from it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use tokio::sync::Notify;
use tonic::Status;

use crate::frame::{Packer, Queue, SessionMessage};

/// The sending end of a session. All clones are of the same session.
///
/// It takes everything at once and never blocks; whoever pushes looks at [`Outgoing::bytes`] to stay within its bounds.
pub struct Outgoing<M> {
    shared: Arc<Shared<M>>,
}

/// The frames of a session, as a client sends them.
pub struct Frames<M> {
    shared: Arc<Shared<M>>,
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
    messages: VecDeque<(M, usize)>,
    packer: Packer,
    /// Of the messages in the queue.
    bytes: usize,
    end: Option<Result<(), Status>>,
    /// Nobody will ever take a frame again.
    gone: bool,
    waker: Option<Waker>,
}

/// A session's queue, and the stream that empties it. `drained` is notified whenever fewer than `low` bytes, or as many,
/// are left of more.
pub fn outgoing<M: SessionMessage>(low: usize, drained: Arc<Notify>) -> (Outgoing<M>, Frames<M>) {
    let state =
        State { messages: VecDeque::new(), packer: Packer::default(), bytes: 0, end: None, gone: false, waker: None };
    let shared = Arc::new(Shared { state: Mutex::new(state), low, drained });
    (Outgoing { shared: Arc::clone(&shared) }, Frames { shared })
}

impl<M: SessionMessage> Outgoing<M> {
    /// Puts a message behind the others.
    pub fn push(&self, message: M) {
        self.extend([message]);
    }

    /// Puts messages behind the others.
    pub fn extend(&self, messages: impl IntoIterator<Item = M>) {
        let mut state = self.shared.state();
        if state.gone || state.end.is_some() {
            return;
        }
        for message in messages {
            let size = message.encoded_len();
            state.bytes += size;
            state.messages.push_back((message, size));
        }
        wake(state);
    }

    /// Bytes that wait to be sent, with what their messages take beside.
    pub fn bytes(&self) -> usize {
        self.shared.state().held()
    }

    /// Whether the other side takes no frames any more.
    pub fn is_gone(&self) -> bool {
        self.shared.state().gone
    }

    /// Ends the stream behind what was pushed.
    pub fn finish(&self) {
        self.end(Ok(()));
    }

    /// Ends the stream with an error, behind what was pushed. A client's stream just ends.
    pub fn fail(&self, status: Status) {
        self.end(Err(status));
    }

    fn end(&self, end: Result<(), Status>) {
        let mut state = self.shared.state();
        state.end.get_or_insert(end);
        wake(state);
    }
}

impl<M> Clone for Outgoing<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<M: SessionMessage> Frames<M> {
    /// The same, for a server.
    pub fn replies(self) -> Replies<M> {
        Replies { frames: self }
    }

    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Result<M::Frame, Status>>> {
        let mut state = self.shared.state();
        let before = state.held();
        let State { messages, packer, bytes, .. } = &mut *state;
        match packer.pack(&mut Pending { messages, bytes }) {
            Some(frame) => {
                let left = state.held();
                drop(state);
                if before > self.shared.low && left <= self.shared.low {
                    self.shared.drained.notify_one();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => match &mut state.end {
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
                Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            },
        }
    }
}

impl<M: SessionMessage> Stream for Frames<M> {
    type Item = M::Frame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<M::Frame>> {
        self.poll_frame(context).map(|frame| frame.and_then(Result::ok))
    }
}

impl<M: SessionMessage> Stream for Replies<M> {
    type Item = Result<M::Frame, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.frames.poll_frame(context)
    }
}

impl<M> Drop for Frames<M> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.gone = true;
        state.bytes = 0;
        let unsent = (std::mem::take(&mut state.messages), std::mem::take(&mut state.packer));
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
        self.bytes + self.packer.rest() + self.messages.len() * size_of::<(M, usize)>()
    }
}

/// Wakes whoever waits for a frame, once the lock is free.
fn wake<M>(mut state: MutexGuard<'_, State<M>>) {
    let waker = state.waker.take();
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

struct Pending<'a, M> {
    messages: &'a mut VecDeque<(M, usize)>,
    bytes: &'a mut usize,
}

impl<M> Queue<M> for Pending<'_, M> {
    fn peek(&self) -> Option<usize> {
        self.messages.front().map(|(_, size)| *size)
    }

    fn pop(&mut self) -> Option<(M, usize)> {
        let (message, size) = self.messages.pop_front()?;
        *self.bytes -= size;
        Some((message, size))
    }
}

impl<M> fmt::Debug for Outgoing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("bytes", &self.shared.state().bytes).finish_non_exhaustive()
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
