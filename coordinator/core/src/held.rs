//! The chunks that an agent holds, as linked lists through the chunks themselves, so that holding one allocates
//! nothing.

use crate::chunk::{Chunk, Hold, Links, NONE};
use crate::ids::{ChunkId, Id};
use crate::slab::Slab;

/// An agent's chunks in two lists, one of them those that may be retracted, each with the newest first.
pub(crate) struct HeldChunks {
    movable: u32,
    fixed: u32,
}

impl Default for HeldChunks {
    fn default() -> Self {
        Self { movable: NONE, fixed: NONE }
    }
}

impl HeldChunks {
    /// Adds the chunk at the head of the list that fits its hold.
    #[inline]
    pub(crate) fn push(&mut self, id: ChunkId, chunks: &mut Slab<ChunkId, Chunk>) {
        let chunk = chunks.get_mut(id).expect("a held chunk exists");
        let head = self.head(chunk.hold);
        chunk.links = Links { newer: NONE, older: *head };
        let second = std::mem::replace(head, id.index());
        if let Some(second) = chunks.get_at_mut(second) {
            second.links.newer = id.index();
        }
    }

    /// Removes the chunk from its list; its hold must be what it was when it was added.
    #[inline]
    pub(crate) fn unlink(&mut self, id: ChunkId, chunks: &mut Slab<ChunkId, Chunk>) {
        let chunk = chunks.get_mut(id).expect("a held chunk exists");
        let Links { newer, older } = std::mem::take(&mut chunk.links);
        let hold = chunk.hold;
        match chunks.get_at_mut(newer) {
            Some(newer) => newer.links.older = older,
            None => *self.head(hold) = older,
        }
        if let Some(older) = chunks.get_at_mut(older) {
            older.links.newer = newer;
        }
    }

    /// Returns the chunks that may be retracted, the newest first: it is the least likely to have begun.
    pub(crate) fn movable<'a>(&self, chunks: &'a Slab<ChunkId, Chunk>) -> impl Iterator<Item = ChunkId> + use<'a> {
        list(self.movable, chunks)
    }

    pub(crate) fn any_movable(&self) -> bool {
        self.movable != NONE
    }

    /// Returns all of them.
    pub(crate) fn iter<'a>(&self, chunks: &'a Slab<ChunkId, Chunk>) -> impl Iterator<Item = ChunkId> + use<'a> {
        list(self.movable, chunks).chain(list(self.fixed, chunks))
    }

    fn head(&mut self, hold: Hold) -> &mut u32 {
        match hold {
            Hold::Assigned => &mut self.movable,
            Hold::Retracting { .. } | Hold::Kept | Hold::Doubled { .. } | Hold::Overtaken => &mut self.fixed,
        }
    }
}

fn list(head: u32, chunks: &Slab<ChunkId, Chunk>) -> impl Iterator<Item = ChunkId> + use<'_> {
    std::iter::successors(chunks.id_at(head), |&id| chunks.id_at(chunks.get(id)?.links.older))
}
