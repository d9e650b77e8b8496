//! Consecutive items that a worker was given together.

use super::super::chunks::Piece;

/// Consecutive items of a chunk that a worker was given, with what it must know about their chunk and job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) chunk: u32,
    pub(super) first: u64,
    pub(super) count: u32,
    /// Position of the first one.
    pub(super) position: u32,
    /// How many of them are finished, from the first on.
    pub(super) done: u32,
    /// When the worker was given them.
    pub(super) since: u64,
    /// How long each may run; 0: as long as it likes.
    pub(super) timeout_ns: u64,
    /// The items of the chunk run on one worker, one after another.
    pub(super) whole: bool,
    /// The first of them is the first of the chunk.
    pub(super) begins_chunk: bool,
    /// Their outcomes are discarded.
    pub(super) cancelled: bool,
}

impl Given {
    /// Returns the number of unfinished items.
    pub(super) fn left(&self) -> u32 {
        self.count - self.done
    }

    /// Returns the position of the first unfinished item.
    pub(super) fn next(&self) -> u32 {
        self.position + self.done
    }

    /// Returns the position after the last item.
    pub(super) fn end(&self) -> u32 {
        self.position + self.count
    }

    /// Returns the index in the job of the item at `position`, if it is one of these and unfinished.
    pub(super) fn item_at(&self, position: u32) -> Option<u64> {
        let known = (self.next()..self.end()).contains(&position);
        known.then(|| self.index(position))
    }

    /// Returns whether `piece` follows these items in their chunk.
    pub(super) fn is_before(&self, piece: Piece) -> bool {
        self.chunk == piece.chunk && self.first + u64::from(self.count) == piece.first
    }

    /// Returns the items between two positions as a piece; `None` if there are none.
    pub(super) fn piece(&self, from: u32, to: u32) -> Option<Piece> {
        let piece = || Piece { chunk: self.chunk, first: self.index(from), count: u64::from(to - from) };
        (from < to).then(piece)
    }

    /// Returns the index in the job of the item at `position`.
    pub(super) fn index(&self, position: u32) -> u64 {
        self.first + u64::from(position - self.position)
    }
}
