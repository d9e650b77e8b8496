//! What was sent on a session and may have to be sent again.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use tonic::Status;

use crate::frame::{FRAME_BYTES, FRAME_MESSAGES};

/// One direction of a session as its sender sees it, over all of the session's connections. It counts messages from the
/// session's start and keeps each until the peer has taken it in; it does no IO and knows nothing of time.
pub(crate) struct Kept<M> {
    /// In no frame yet, each with its encoded size.
    fresh: VecDeque<(M, usize)>,
    /// Not acknowledged, as they were in frames, the oldest first.
    frames: VecDeque<Batch<M>>,
    /// How many of these were taken for this connection. The others wait to be sent again.
    taken: usize,
    /// Messages in front of the first of `frames`.
    before: u64,
    /// Messages that the peer has taken in, as it said last.
    acknowledged: u64,
    /// Messages that were wholly sent on this connection or are acknowledged.
    sent: u64,
}

/// The messages of one frame, or a message that is too large for one.
struct Batch<M> {
    messages: Arc<Vec<M>>,
    bytes: usize,
}

/// What the next frame is made of. It stays where it is kept as well.
pub(crate) enum Taken<M> {
    /// Messages for one frame, and what they count for.
    Whole(Arc<Vec<M>>, usize),
    /// One message, which travels in pieces. [`Kept::sent_last_piece`] follows when all are made.
    Large(Arc<Vec<M>>),
}

/// What need not be kept any more: to be dropped where nobody waits for that.
pub(crate) struct Freed<M> {
    /// What it counted for.
    pub(crate) size: usize,
    /// Mostly it is one frame, which then costs no `Vec`.
    _first: Option<Batch<M>>,
    _others: Vec<Batch<M>>,
}

/// What so many messages count for: small ones take more in memory than on the wire, and a queue that grows keeps room for half as
/// many again.
pub(crate) const fn size_of_messages<M>(bytes: usize, count: usize) -> usize {
    bytes + count * size_of::<(M, usize)>() * 3 / 2
}

impl<M> Default for Kept<M> {
    fn default() -> Self {
        Self { fresh: VecDeque::new(), frames: VecDeque::new(), taken: 0, before: 0, acknowledged: 0, sent: 0 }
    }
}

impl<M: Message + Clone> Kept<M> {
    /// Takes messages over, each with its encoded size, if there are no fresh ones.
    pub(crate) fn refill(&mut self, queue: &mut VecDeque<(M, usize)>) {
        if self.fresh.is_empty() {
            std::mem::swap(&mut self.fresh, queue);
        }
    }

    /// Whether there is nothing to send but what is new.
    pub(crate) fn is_through(&self) -> bool {
        self.taken == self.frames.len() && self.fresh.is_empty()
    }

    /// What to send next: first what is to be sent again. A message of more than `whole` bytes is large.
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

    /// All pieces of the large message that was taken last are made.
    pub(crate) fn sent_last_piece(&mut self) {
        self.sent += 1;
    }

    /// The peer says that it has taken in so many messages.
    ///
    /// # Errors
    /// If that cannot be.
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

    /// All that was sent counts as taken in.
    pub(crate) fn forget_sent(&mut self) -> Freed<M> {
        self.acknowledge(self.sent).expect("what was sent can have been taken in")
    }

    /// There is a new connection: what the peer has not taken in is to be sent again.
    ///
    /// # Errors
    /// If it cannot have taken in so much, or so little: then nothing has changed.
    pub(crate) fn go_back(&mut self, received: u64) -> Result<Freed<M>, Status> {
        let mut freed = self.acknowledge(received)?;
        // Frames arrive as a whole, so this is for peers that count as they like.
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

impl<M> Kept<M> {
    /// Messages that the peer has taken in.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Messages that have been in frames, or in a part of one, of whatever connection.
    pub(crate) fn framed(&self) -> u64 {
        self.before + self.frames.iter().map(|batch| batch.messages.len() as u64).sum::<u64>()
    }
}

impl<M> Batch<M> {
    fn size(&self) -> usize {
        size_of_messages::<M>(self.bytes, self.messages.len())
    }
}

/// As many messages as fit into a frame, and at least one, if there is one.
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
