//! The messages that an agent gets at the end of a round: at most one of each kind.

use farpool_core::ChunkId;
use farpool_proto::v1::{Assign, CancelChunks, Chunk, Retract, Segment, agent_command};

/// The mail for one agent.
#[derive(Default)]
pub(crate) struct Mail {
    assign: Assign,
    retract: Retract,
    cancel: CancelChunks,
}

impl Mail {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.assign.chunks.is_empty() && self.retract.chunks.is_empty() && self.cancel.chunks.is_empty()
    }

    /// Adds a chunk. `cut` adds its segments and returns how many they are.
    #[inline]
    pub(crate) fn assign(&mut self, mut chunk: Chunk, cut: impl FnOnce(&mut Vec<Segment>) -> u32) {
        chunk.segments = cut(&mut self.assign.segments);
        self.assign.chunks.push(chunk);
    }

    pub(crate) fn retract(&mut self, chunk: ChunkId) {
        self.retract.chunks.push(chunk.to_bits());
    }

    pub(crate) fn cancel(&mut self, chunk: ChunkId) {
        self.cancel.chunks.push(chunk.to_bits());
    }

    /// Takes the message that cancels chunks.
    pub(crate) fn take_cancelled(&mut self) -> Option<agent_command::Body> {
        let some = !self.cancel.chunks.is_empty();
        some.then(|| agent_command::Body::CancelChunks(std::mem::take(&mut self.cancel)))
    }

    /// Takes the message that assigns chunks.
    pub(crate) fn take_assigned(&mut self) -> Option<agent_command::Body> {
        let some = !self.assign.chunks.is_empty();
        some.then(|| agent_command::Body::Assign(std::mem::take(&mut self.assign)))
    }

    /// Takes the message that retracts chunks.
    pub(crate) fn take_retracted(&mut self) -> Option<agent_command::Body> {
        let some = !self.retract.chunks.is_empty();
        some.then(|| agent_command::Body::Retract(std::mem::take(&mut self.retract)))
    }
}
