//! What both ends of a session share: what is to be sent, what is kept, and what was taken in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;
use tonic::Status;

use crate::frame::{SessionMessage, WHOLE_BYTES};
use crate::kept::{Freed, Kept, size_of_messages};

/// The peer is told what was taken in at the latest when it is more than this (a frame only for that costs each side a wake), ...
const UNTOLD_MESSAGES: u64 = 1024;
/// ... or, in bytes, this.
pub(crate) const UNTOLD_BYTES: usize = 512 << 10;

/// One side of a session. Whoever locks both of its parts locks `line` first.
pub(crate) struct Session<M> {
    line: Mutex<Line<M>>,
    queue: Mutex<Queue<M>>,
    /// See [`crate::outgoing`].
    low: usize,
    drained: Arc<Notify>,
}

/// What the connections have to do with. Frames are made under its lock, so those who push never wait for it.
pub(crate) struct Line<M> {
    /// The connection that is in place: they are counted from 0.
    pub(crate) connection: u64,
    /// The peer is to say first what it has taken in.
    pub(crate) awaits_answer: bool,
    pub(crate) kept: Kept<M>,
    /// No other connection comes: nothing is kept for one.
    pub(crate) only_one: bool,
    /// Messages of the peer that were taken in, and how many of them it was told about.
    pub(crate) received: u64,
    told: u64,
    untold_bytes: usize,
    /// It waits to hear.
    hurries: bool,
}

/// What was pushed.
pub(crate) struct Queue<M> {
    /// In no frame yet and not taken to be, each with its encoded size.
    pub(crate) messages: VecDeque<(M, usize)>,
    /// From the session's start.
    pub(crate) pushed: u64,
    pub(crate) acknowledged: u64,
    /// Of all that is not acknowledged.
    pub(crate) size: usize,
    /// Of what is in frames of this connection.
    pub(crate) sent: usize,
    /// While so much of it is not acknowledged no further message is begun.
    pub(crate) window: usize,
    /// Larger messages travel in pieces.
    pub(crate) whole: usize,
    pub(crate) end: Option<Result<(), Status>>,
    /// Nobody takes frames.
    pub(crate) gone: bool,
    pub(crate) waker: Option<Waker>,
}

/// What came in a frame.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) messages: u64,
    /// About.
    pub(crate) bytes: usize,
    /// What the peer has taken in; 0: it does not say.
    pub(crate) received: u64,
}

/// What a receiving end needs of its session, whatever is sent the other way.
pub(crate) trait Listener: Send + Sync {
    /// A frame came on a connection.
    fn hear(&self, connection: u64, heard: Heard) -> Result<(), Refused>;
}

/// Why a frame is not taken in.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another connection is in place of the one that it came on.
    Replaced,
    Garbled(Status),
}

impl<M: SessionMessage> Session<M> {
    pub(crate) fn new(low: usize, drained: Arc<Notify>) -> Self {
        let line = Line {
            connection: 0,
            awaits_answer: false,
            kept: Kept::default(),
            only_one: false,
            received: 0,
            told: 0,
            untold_bytes: 0,
            hurries: false,
        };
        let queue = Queue {
            messages: VecDeque::new(),
            pushed: 0,
            acknowledged: 0,
            size: 0,
            sent: 0,
            window: usize::MAX,
            whole: WHOLE_BYTES,
            end: None,
            gone: false,
            waker: None,
        };
        Self { line: Mutex::new(line), queue: Mutex::new(queue), low, drained }
    }

    /// Changes the queue, and tells who waits for it to drain if it has.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Queue<M>) -> T) -> T {
        let mut queue = self.queue();
        let before = [queue.size, queue.waiting()];
        let result = change(&mut queue);
        let after = [queue.size, queue.waiting()];
        drop(queue);
        if before.iter().zip(after).any(|(&before, after)| before > self.low && after <= self.low) {
            self.drained.notify_one();
        }
        result
    }

    /// Puts another connection into the place of the one that there is; returns its number, and what the peer is to be
    /// told about what was taken in.
    pub(crate) fn reconnect(&self, line: &mut Line<M>) -> (u64, u64) {
        line.connection += 1;
        self.queue().gone = false;
        // The frames of the old one end.
        self.wake();
        (line.connection, line.tell(true))
    }

    /// What the peer has not taken in is sent again on the connection that is in place.
    pub(crate) fn go_back(&self, line: &mut Line<M>, received: u64) -> Result<(), Status> {
        let freed = line.kept.go_back(received)?;
        self.free(line, freed, true);
        Ok(())
    }

    /// What these frames counted for counts no more; `again`: what is left is to be sent once more.
    fn free(&self, line: &Line<M>, freed: Freed<M>, again: bool) {
        self.change(|queue| {
            queue.acknowledged = line.kept.acknowledged();
            queue.size -= freed.size;
            queue.sent = if again { 0 } else { queue.sent - freed.size };
        });
    }

    /// What is wholly in frames is not kept if no other connection comes.
    pub(crate) fn let_go(&self, line: &mut Line<M>) {
        if line.only_one {
            let freed = line.kept.forget_sent();
            self.free(line, freed, false);
        }
    }

    /// Takes in messages that came before there was a session; returns the connection that is in place.
    pub(crate) fn begin(&self, heard: &Heard) -> u64 {
        let mut line = self.line();
        line.take_in(heard);
        line.connection
    }
}

impl<M> Session<M> {
    pub(crate) fn line(&self) -> MutexGuard<'_, Line<M>> {
        // Both parts are whole between any two statements: a panic elsewhere does not spoil them.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue<M>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits for a frame looks again.
    pub(crate) fn wake(&self) {
        wake(self.queue());
    }

    pub(crate) fn end(&self, end: Result<(), Status>) {
        let mut queue = self.queue();
        queue.end.get_or_insert(end);
        wake(queue);
    }

    /// Nobody takes the frames of a connection any more.
    pub(crate) fn lose(&self, connection: u64) {
        // Under the lock, lest it is another connection's loss.
        let line = self.line();
        if line.connection == connection {
            self.queue().gone = true;
            self.drained.notify_one();
        }
    }
}

impl<M: SessionMessage> Listener for Session<M> {
    fn hear(&self, connection: u64, heard: Heard) -> Result<(), Refused> {
        let mut line = self.line();
        if line.connection != connection {
            return Err(Refused::Replaced);
        }
        let mut waited = false;
        if heard.received > 0 && !line.only_one {
            let freed = line.kept.acknowledge(heard.received).map_err(Refused::Garbled)?;
            waited = self.queue().is_window_full();
            self.free(&line, freed, false);
        }
        line.take_in(&heard);
        let owes = line.owes();
        drop(line);
        if owes || waited {
            self.wake();
        }
        Ok(())
    }
}

impl<M> Line<M> {
    fn take_in(&mut self, heard: &Heard) {
        self.received += heard.messages;
        self.untold_bytes += heard.bytes;
    }

    /// Whether the peer is to be told what was taken in even if there is nothing else to say.
    pub(crate) fn owes(&self) -> bool {
        let untold = self.received - self.told;
        untold > UNTOLD_MESSAGES || self.untold_bytes > UNTOLD_BYTES || (self.hurries && untold > 0)
    }

    /// The peer is to be told soon.
    pub(crate) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// What the peer is told: how many of its messages were taken in, or 0 if it knows and need not be told `anyway`.
    pub(crate) fn tell(&mut self, anyway: bool) -> u64 {
        let told = std::mem::replace(&mut self.told, self.received);
        (self.untold_bytes, self.hurries) = (0, false);
        if told < self.received || anyway { self.received } else { 0 }
    }
}

impl<M> Queue<M> {
    /// Size of what is to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.size - self.sent
    }

    /// Whether no further message is begun until some are acknowledged. At the end all go out.
    pub(crate) fn is_window_full(&self) -> bool {
        self.sent >= self.window && self.end.is_none()
    }

    pub(crate) fn push(&mut self, message: M, size: usize) {
        self.size += size_of_messages::<M>(size, 1);
        self.pushed += 1;
        self.messages.push_back((message, size));
    }
}

/// Wakes whoever waits for a frame, once the lock is free.
pub(crate) fn wake<M>(mut queue: MutexGuard<'_, Queue<M>>) {
    let waker = queue.waker.take();
    drop(queue);
    waker.into_iter().for_each(Waker::wake);
}
