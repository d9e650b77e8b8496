//! State that both ends of a session share: what is to be sent, what is kept, and what was received.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;
use tonic::Status;

use crate::frame::{SessionMessage, WHOLE_BYTES};
use crate::kept::{Freed, Unacknowledged, size_of_messages};

/// More unacknowledged messages than this are acknowledged in a frame of their own, which costs each side a wake-up ...
const UNACKNOWLEDGED_MESSAGES: u64 = 1024;
/// ... and so are more bytes than this.
pub(crate) const UNACKNOWLEDGED_BYTES: usize = 512 << 10;

/// One side of a session. To lock both parts, lock `state` first.
pub(crate) struct Session<M> {
    state: Mutex<ConnectionState<M>>,
    queue: Mutex<Queue<M>>,
    drained: Arc<Notify>,
}

/// State of the connections. Frames are made under its lock, not the queue's, so pushing never waits for them.
pub(crate) struct ConnectionState<M> {
    /// The number of the current connection, from 0.
    pub(crate) connection: u64,
    /// Whether the peer must first report what it has received.
    pub(crate) awaits_answer: bool,
    pub(crate) kept: Unacknowledged<M>,
    /// Messages received from the peer, and how many of them were acknowledged.
    pub(crate) received: u64,
    reported: u64,
    unreported_bytes: usize,
    /// Whether the peer waits for an acknowledgement.
    peer_waits: bool,
}

/// Messages that were pushed.
pub(crate) struct Queue<M> {
    /// In no frame yet and not taken over for one, each with its encoded size.
    pub(crate) messages: VecDeque<(M, usize)>,
    /// Since the session's start.
    pub(crate) pushed: u64,
    pub(crate) acknowledged: u64,
    /// Size of everything that is not acknowledged.
    pub(crate) size: usize,
    /// Size of what is in frames of this connection and not acknowledged.
    pub(crate) sent: usize,
    /// No further message is begun while `sent` is at least this much.
    pub(crate) window: usize,
    /// Larger messages travel in pieces.
    pub(crate) whole: usize,
    /// See [`crate::outgoing`].
    pub(crate) low: usize,
    pub(crate) end: Option<Result<(), Status>>,
    /// Whether the connection is lost and not replaced yet.
    pub(crate) gone: bool,
    pub(crate) waker: Option<Waker>,
}

/// The contents of a frame.
#[derive(Debug, Default)]
pub(crate) struct FrameCounts {
    pub(crate) messages: u64,
    /// The approximate size.
    pub(crate) bytes: usize,
    /// What the peer acknowledges; 0: nothing.
    pub(crate) received: u64,
}

/// The methods that a receiving end needs of its session, whatever the type of the other direction's messages.
pub(crate) trait FrameSink: Send + Sync {
    /// A frame arrived on a connection.
    fn receive(&self, connection: u64, counts: FrameCounts) -> Result<(), Refused>;
}

/// Why a frame is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another connection has replaced the one that it arrived on.
    Replaced,
    Garbled(Status),
}

impl<M: SessionMessage> Session<M> {
    pub(crate) fn new(low: usize, drained: Arc<Notify>) -> Self {
        let state = ConnectionState {
            connection: 0,
            awaits_answer: false,
            kept: Unacknowledged::default(),
            received: 0,
            reported: 0,
            unreported_bytes: 0,
            peer_waits: false,
        };
        let queue = Queue {
            messages: VecDeque::new(),
            pushed: 0,
            acknowledged: 0,
            size: 0,
            sent: 0,
            window: usize::MAX,
            whole: WHOLE_BYTES,
            low,
            end: None,
            gone: false,
            waker: None,
        };
        Self { state: Mutex::new(state), queue: Mutex::new(queue), drained }
    }

    /// Changes the queue, and notifies those that wait for it to drain, if it has.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Queue<M>) -> T) -> T {
        let mut queue = self.queue();
        let before = [queue.size, queue.waiting()];
        let result = change(&mut queue);
        let (after, low) = ([queue.size, queue.waiting()], queue.low);
        drop(queue);
        if before.iter().zip(after).any(|(&before, after)| before > low && after <= low) {
            self.drained.notify_one();
        }
        result
    }

    /// Replaces the current connection; returns the number of the new one, and what to acknowledge on it.
    pub(crate) fn reconnect(&self, state: &mut ConnectionState<M>) -> (u64, u64) {
        state.connection += 1;
        self.queue().gone = false;
        // The frames of the old one end.
        self.wake();
        (state.connection, state.acknowledgement(true))
    }

    /// Resends on the current connection what the peer has not received.
    pub(crate) fn resend_from(&self, state: &mut ConnectionState<M>, received: u64) -> Result<(), Status> {
        let freed = state.kept.resend_from(received)?;
        self.free(state, freed, true);
        Ok(())
    }

    /// Subtracts the size of freed frames; `again`: the rest will be resent.
    fn free(&self, state: &ConnectionState<M>, freed: Freed<M>, again: bool) {
        self.change(|queue| {
            queue.acknowledged = state.kept.acknowledged();
            queue.size -= freed.size;
            queue.sent = if again { 0 } else { queue.sent - freed.size };
        });
    }

    /// Counts messages that arrived before there was a session; returns the current connection.
    pub(crate) fn begin(&self, counts: &FrameCounts) -> u64 {
        let mut state = self.state();
        state.count_received(counts);
        state.connection
    }
}

impl<M> Session<M> {
    pub(crate) fn state(&self) -> MutexGuard<'_, ConnectionState<M>> {
        // Both parts are consistent between any two statements, so a panic elsewhere does not corrupt them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue<M>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task that waits for a frame.
    pub(crate) fn wake(&self) {
        wake(self.queue());
    }

    pub(crate) fn end(&self, end: Result<(), Status>) {
        let mut queue = self.queue();
        queue.end.get_or_insert(end);
        wake(queue);
    }

    /// The connection has dropped its frames: it is lost.
    pub(crate) fn connection_lost(&self, connection: u64) {
        // Under the lock: it must not count as the loss of another connection.
        let state = self.state();
        if state.connection == connection {
            self.queue().gone = true;
            self.drained.notify_one();
        }
    }
}

impl<M: SessionMessage> FrameSink for Session<M> {
    fn receive(&self, connection: u64, counts: FrameCounts) -> Result<(), Refused> {
        let mut state = self.state();
        if state.connection != connection {
            return Err(Refused::Replaced);
        }
        let mut waited = false;
        if counts.received > 0 {
            let freed = state.kept.acknowledge(counts.received).map_err(Refused::Garbled)?;
            waited = self.queue().is_window_full();
            self.free(&state, freed, false);
        }
        state.count_received(&counts);
        let must_acknowledge = state.must_acknowledge();
        drop(state);
        if must_acknowledge || waited {
            self.wake();
        }
        Ok(())
    }
}

impl<M> ConnectionState<M> {
    fn count_received(&mut self, counts: &FrameCounts) {
        self.received += counts.messages;
        self.unreported_bytes += counts.bytes;
    }

    /// Whether to acknowledge even if there is nothing else to send.
    pub(crate) fn must_acknowledge(&self) -> bool {
        let unreported = self.received - self.reported;
        unreported > UNACKNOWLEDGED_MESSAGES
            || self.unreported_bytes > UNACKNOWLEDGED_BYTES
            || (self.peer_waits && unreported > 0)
    }

    /// Acknowledges soon.
    pub(crate) fn acknowledge_soon(&mut self) {
        self.peer_waits = true;
    }

    /// Returns the acknowledgement for the peer, or 0 if it has it already and does not need it `anyway`.
    pub(crate) fn acknowledgement(&mut self, anyway: bool) -> u64 {
        let reported = std::mem::replace(&mut self.reported, self.received);
        (self.unreported_bytes, self.peer_waits) = (0, false);
        if reported < self.received || anyway { self.received } else { 0 }
    }
}

impl<M> Queue<M> {
    /// Returns the size of what is to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.size - self.sent
    }

    /// Whether no further message is begun until some are acknowledged. At the end all are sent.
    pub(crate) fn is_window_full(&self) -> bool {
        self.sent >= self.window && self.end.is_none()
    }

    pub(crate) fn push(&mut self, message: M, size: usize) {
        self.size += size_of_messages::<M>(size, 1);
        self.pushed += 1;
        self.messages.push_back((message, size));
    }
}

/// Wakes the task that waits for a frame, once the lock is free.
pub(crate) fn wake<M>(mut queue: MutexGuard<'_, Queue<M>>) {
    let waker = queue.waker.take();
    drop(queue);
    waker.into_iter().for_each(Waker::wake);
}
