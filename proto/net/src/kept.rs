//! Messages that were sent on a session and may have to be resent.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use tonic::Status;

use crate::frame::{FRAME_BYTES, FRAME_MESSAGES};

/// One direction of a session from its sender's side, across all connections. It counts messages from the session's
/// start and keeps each until the peer has acknowledged it. It does no IO and has no clock.
pub(crate) struct Unacknowledged<M> {
    /// In no frame yet, each with its encoded size.
    fresh: VecDeque<(M, usize)>,
    /// Frames that are not acknowledged, the oldest first.
    frames: VecDeque<Batch<M>>,
    /// How many of these were sent on this connection. The others wait to be resent.
    taken: usize,
    /// Messages before the first of `frames`.
    before: u64,
    /// Messages that the peer has acknowledged.
    acknowledged: u64,
    /// Messages that were completely sent on this connection or are acknowledged.
    sent: u64,
}

/// The messages of one frame, or a message that is too large for one.
struct Batch<M> {
    messages: Arc<Vec<M>>,
    bytes: usize,
}

/// The contents of the next frame, which are also kept.
pub(crate) enum Taken<M> {
    /// Messages for one frame, and their size.
    Whole(Arc<Vec<M>>, usize),
    /// One message, which travels in pieces. [`Unacknowledged::sent_last_piece`] is called when all are made.
    Large(Arc<Vec<M>>),
}

/// Frames that are no longer kept. Drop them where that delays nothing.
pub(crate) struct Freed<M> {
    /// Their size.
    pub(crate) size: usize,
    /// Usually the only one, so that no `Vec` is needed.
    _first: Option<Batch<M>>,
    _others: Vec<Batch<M>>,
}

/// Returns the size of this many messages. Small ones take more in memory than on the wire, and a growing queue has
/// room for half as many again.
pub(crate) const fn size_of_messages<M>(bytes: usize, count: usize) -> usize {
    bytes + count * size_of::<(M, usize)>() * 3 / 2
}

impl<M> Default for Unacknowledged<M> {
    fn default() -> Self {
        Self { fresh: VecDeque::new(), frames: VecDeque::new(), taken: 0, before: 0, acknowledged: 0, sent: 0 }
    }
}

impl<M: Message + Clone> Unacknowledged<M> {
    /// Takes over messages, each with its encoded size, if there are no fresh ones.
    pub(crate) fn refill(&mut self, queue: &mut VecDeque<(M, usize)>) {
        if self.fresh.is_empty() {
            std::mem::swap(&mut self.fresh, queue);
        }
    }

    /// Whether nothing waits to be resent.
    pub(crate) fn nothing_to_resend(&self) -> bool {
        self.taken == self.frames.len() && self.fresh.is_empty()
    }

    /// Returns what to send next: first what must be resent. A message of more than `whole` bytes is large.
    pub(crate) fn take(&mut self, whole: usize) -> Option<Taken<M>> {
        if self.taken == self.frames.len() {
            self.frames.push_back(gather(&mut self.fresh)?);
        }
        let batch = &self.frames[self.taken];
        let messages = Arc::clone(&batch.messages);
        self.taken += 1;
        if batch.bytes > whole {
            return Some(Taken::Large(messages));
        }
        self.sent += messages.len() as u64;
        Some(Taken::Whole(messages, batch.size()))
    }

    /// Records that all pieces of the last large message were made.
    pub(crate) fn sent_last_piece(&mut self) {
        self.sent += 1;
    }

    /// The peer acknowledges this many messages.
    ///
    /// # Errors
    /// If that is impossible.
    pub(crate) fn acknowledge(&mut self, received: u64) -> Result<Freed<M>, Status> {
        let (acknowledged, sent) = (self.acknowledged, self.sent);
        if received > sent {
            let message = format!("it says that it has received {received} messages, but {sent} were sent");
            return Err(Status::invalid_argument(message));
        }
        if received < acknowledged {
            let message = format!("it says that it has received {received} messages, but said {acknowledged} before");
            return Err(Status::invalid_argument(message));
        }
        self.acknowledged = received;
        let (mut count, mut size) = (0, 0);
        for batch in &self.frames {
            let after = self.before + batch.messages.len() as u64;
            if after > received {
                break;
            }
            (self.before, count, size) = (after, count + 1, size + batch.size());
        }
        self.taken -= count;
        let mut freed = self.frames.drain(..count);
        Ok(Freed { size, _first: freed.next(), _others: freed.collect() })
    }

    /// Begins to resend on a new connection what the peer has not received.
    ///
    /// # Errors
    /// If the peer cannot have received this number of messages: then nothing has changed.
    pub(crate) fn resend_from(&mut self, received: u64) -> Result<Freed<M>, Status> {
        let mut freed = self.acknowledge(received)?;
        // Frames arrive as a whole, so this is for peers with arbitrary counts.
        if let Some(batch) = self.frames.front_mut()
            && self.before < received
        {
            freed.size += batch.size();
            batch.messages = Arc::new(batch.messages[(received - self.before) as usize..].to_vec());
            batch.bytes = batch.messages.iter().map(M::encoded_len).sum();
            freed.size -= batch.size();
            self.before = received;
        }
        (self.taken, self.sent) = (0, received);
        Ok(freed)
    }
}

impl<M> Unacknowledged<M> {
    /// Returns how many messages the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Returns how many messages have been in frames, or partly in one, on any connection.
    pub(crate) fn framed(&self) -> u64 {
        self.before + self.frames.iter().map(|batch| batch.messages.len() as u64).sum::<u64>()
    }
}

impl<M> Batch<M> {
    fn size(&self) -> usize {
        size_of_messages::<M>(self.bytes, self.messages.len())
    }
}

/// Returns as many messages as fit into a frame, and at least one, if there is one.
fn gather<M>(fresh: &mut VecDeque<(M, usize)>) -> Option<Batch<M>> {
    let (mut count, mut bytes) = (0, 0);
    for (_, size) in fresh.iter() {
        if count > 0 && (bytes + size > FRAME_BYTES || count == FRAME_MESSAGES) {
            break;
        }
        (count, bytes) = (count + 1, bytes + size);
    }
    let messages = fresh.drain(..count).map(|(message, _)| message).collect();
    (count > 0).then(|| Batch { messages: Arc::new(messages), bytes })
}

#[cfg(test)]
mod tests;
