//! The encoded items of a job, kept until they have their outcomes.

use std::collections::VecDeque;

use bytes::Bytes;
use farpool_core::Window;
use farpool_proto::ends;
use farpool_proto::v1::Segment;

use crate::convert::{Batch, end_at};

/// Bytes that a stored message takes beyond its payload: two reference counts, and the entry here, which counts twice
/// because a queue doubles when it grows. This bounds a client that sends its items one by one.
pub(crate) const MESSAGE_COST: u64 = 192;

/// Batches as they arrived. Chunks are cut out of them by reference.
#[derive(Debug)]
pub(crate) struct Payloads {
    // Sorted by index.
    batches: VecDeque<KeptBatch>,
    // One above the highest index that ever arrived.
    next: u64,
    window: Window,
}

#[derive(Debug)]
struct KeptBatch {
    batch: Batch,
    // Items without an outcome. The bytes are freed when it is 0, and the entry when all entries before it are freed
    // too.
    left: u64,
}

impl Payloads {
    pub(crate) fn new(window: Window) -> Self {
        Self { batches: VecDeque::new(), next: 0, window }
    }

    /// Returns the limit that another batch would exceed; `None`: it may arrive.
    pub(crate) fn overrun(&self) -> Option<u64> {
        (!self.window.admits()).then(|| self.window.limit())
    }

    /// Whether nothing can run before more items arrive.
    pub(crate) fn lacks_chunk(&self) -> bool {
        self.window.lacks_chunk()
    }

    /// Returns the lowest index that may arrive.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Stores a batch; its first index is not below [`next`](Self::next).
    pub(crate) fn keep(&mut self, batch: Batch) {
        assert!(batch.first >= self.next, "batches come in order");
        self.next = batch.first + batch.count;
        self.window.arrive(batch.count, batch.bytes());
        self.batches.push_back(KeptBatch { left: batch.count, batch });
    }

    /// Adds the segments with items `first .. first + count` to `segments` and returns how many they are. The items are
    /// stored and have no outcome.
    #[inline]
    pub(crate) fn cut(&self, first: u64, count: u64, segments: &mut Vec<Segment>) -> u32 {
        let (mut first, end) = (first, first + count);
        let mut pieces = 0;
        for KeptBatch { batch, .. } in self.batches.range(self.position(first)..) {
            let (from, to) = (first - batch.first, (end - batch.first).min(batch.count));
            segments.push(segment(batch, from, to));
            pieces += 1;
            first = batch.first + to;
            if first == end {
                break;
            }
        }
        assert_eq!(first, end, "all requested items are stored");
        pieces
    }

    /// Frees items `first .. first + count`, which have their outcomes. Returns the new limit of the window when it has
    /// risen enough to tell the client.
    #[inline]
    pub(crate) fn release(&mut self, first: u64, count: u64) -> Option<u64> {
        let mut freed = 0;
        let (mut first, end, at) = (first, first + count, self.position(first));
        for stored in self.batches.range_mut(at..) {
            let to = end.min(stored.batch.first + stored.batch.count);
            stored.left -= to - first;
            if stored.left == 0 {
                freed += stored.batch.bytes();
                stored.batch.data = Bytes::new();
                stored.batch.ends = Bytes::new();
            }
            first = to;
            if first == end {
                break;
            }
        }
        while self.batches.front().is_some_and(|stored| stored.left == 0) {
            self.batches.pop_front();
        }
        self.window.finish(count, freed)
    }

    /// Returns the stored batches, the lowest indices first; batches whose items have their outcomes may be empty.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().map(|stored| &stored.batch)
    }

    /// Returns the stored bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.window.held()
    }

    /// Returns the memory of all batches: their bytes and an overhead for each message.
    #[inline]
    pub(crate) fn cost(&self) -> u64 {
        self.bytes() + MESSAGE_COST * self.batches.len() as u64
    }

    /// Returns the position of the batch with this item.
    #[inline]
    fn position(&self, item: u64) -> usize {
        // Most jobs have few batches at a time, and usually the first one is needed.
        match self.batches.front() {
            Some(front) if item < front.batch.first + front.batch.count => 0,
            _ => self.batches.partition_point(|stored| stored.batch.first <= item).saturating_sub(1),
        }
    }
}

#[inline]
fn segment(batch: &Batch, from: u64, to: u64) -> Segment {
    let start = if from == 0 { 0 } else { end_at(&batch.ends, from - 1) };
    let end = end_at(&batch.ends, to - 1);
    let data = batch.data.slice(start as usize..end as usize);
    match ends::of_single(to - from, data.len()) {
        Some(ends) => Segment { data, start: 0, ends },
        None => Segment { data, start, ends: batch.ends.slice(from as usize * 4..to as usize * 4) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The payload of item `index`: its number, repeated so that lengths differ; some are empty.
    fn payload(index: u64) -> Vec<u8> {
        index.to_le_bytes().repeat(index as usize % 3)
    }

    fn batch(first: u64, count: u64) -> Batch {
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for index in first..first + count {
            data.extend(payload(index));
            ends.extend((data.len() as u32).to_le_bytes());
        }
        Batch { first, count, data: data.into(), ends: ends.into(), failed: false }
    }

    fn payloads() -> Payloads {
        Payloads::new(Window::new(1 << 20, None))
    }

    fn items(segments: &[Segment]) -> Vec<Vec<u8>> {
        let mut items = Vec::new();
        for Segment { data, start, ends } in segments {
            let mut from = 0;
            for at in 0..ends.len() as u64 / 4 {
                let to = (end_at(ends, at) - start) as usize;
                items.push(data[from..to].to_vec());
                from = to;
            }
            assert_eq!(from, data.len());
        }
        items
    }

    proptest! {
        #[test]
        fn cuts_are_the_items_and_bytes_are_freed_in_time(
            batches in prop::collection::vec((0..3u64, 1..9u64), 1..12),
            order in any::<u64>(),
            step in 1..7u64,
        ) {
            let mut payloads = payloads();
            let mut kept = Vec::new();
            for (gap, count) in batches {
                kept.push(batch(payloads.next() + gap, count));
                payloads.keep(kept[kept.len() - 1].clone());
            }
            // Pieces of the runs without gaps, in a scattered order.
            let arrived: Vec<u64> = kept.iter().flat_map(|batch| batch.first..batch.first + batch.count).collect();
            let runs = arrived.chunk_by(|a, b| a + 1 == *b);
            let mut pieces: Vec<&[u64]> = runs.flat_map(|run| run.chunks(step as usize)).collect();
            pieces.sort_by_key(|piece| (piece[0] + 1).wrapping_mul(order | 1));
            let mut left = arrived.clone();
            for piece in pieces {
                let mut segments = Vec::new();
                let count = payloads.cut(piece[0], piece.len() as u64, &mut segments);
                prop_assert_eq!(count as usize, segments.len());
                let expected: Vec<_> = piece.iter().map(|&index| payload(index)).collect();
                prop_assert_eq!(items(&segments), expected);
                payloads.release(piece[0], piece.len() as u64);
                left.retain(|index| !piece.contains(index));
                let needed = kept.iter().filter(|batch| left.iter().any(|&index| index.wrapping_sub(batch.first) < batch.count));
                prop_assert_eq!(payloads.bytes(), needed.map(Batch::bytes).sum::<u64>());
            }
            prop_assert_eq!((payloads.bytes(), payloads.batches.len()), (0, 0));
        }
    }

    #[test]
    fn a_batch_is_freed_with_its_last_outcome() {
        let mut payloads = payloads();
        payloads.keep(batch(0, 4));
        payloads.keep(batch(4, 4));
        let all = payloads.bytes();
        payloads.release(5, 3);
        assert_eq!(payloads.bytes(), all);
        payloads.release(4, 1);
        assert_eq!(payloads.bytes(), batch(0, 4).bytes());
        payloads.release(0, 4);
        assert_eq!((payloads.bytes(), payloads.next()), (0, 8));
    }
}
