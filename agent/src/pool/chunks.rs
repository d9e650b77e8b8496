//! The chunks that a pool holds, and the pieces of them that are still queued.

use bytes::Bytes;
use farpool_proto::v1::Segment;

use super::function::{Function, Shared};

/// A chunk that the coordinator has assigned.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Its id at the coordinator.
    pub(super) id: u64,
    pub(super) attempt: u32,
    /// The job's number in this pool.
    pub(super) job: u32,
    pub(super) first: u64,
    pub(super) count: u64,
    /// Items that have no outcome yet and were not returned.
    pub(super) left: u64,
    /// Its outcomes are discarded.
    pub(super) cancelled: bool,
    /// The first segment, almost always the only one.
    head: Segment,
    /// Behind one pointer, since chunks are moved often: see [`MAX_COPIED_BYTES`].
    #[expect(clippy::box_collection, reason = "a boxed slice is two words")]
    more: Option<Box<Vec<Segment>>>,
}

/// The size up to which the compiler copies inline instead of calling memcpy. If items are large or slow, there is a
/// chunk for each item.
const MAX_COPIED_BYTES: usize = 128;
const _: () = assert!(size_of::<Chunk>() <= MAX_COPIED_BYTES);

/// Queued items of a chunk; `first` counts within the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) chunk: u32,
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Piece {
    /// Returns the piece without its first `items` items.
    pub(super) fn after(self, items: u64) -> Piece {
        Piece { first: self.first + items, count: self.count - items, ..self }
    }
}

/// Items for a worker, and the facts that it needs about their chunk and job.
#[derive(Debug)]
pub(super) struct Assignment<'a> {
    pub(super) piece: Piece,
    /// The items of the piece that are in one segment, from the first on.
    pub(super) stretch: Stretch<'a>,
    /// The job's number in this pool.
    pub(super) job: u32,
    pub(super) function: &'a Function,
    pub(super) shared: &'a Shared,
    /// How long each item may run; 0: as long as it likes.
    pub(super) timeout_ns: u64,
    /// The items of the chunk run on one worker, one after another.
    pub(super) whole: bool,
    /// The piece begins with the first item of the chunk.
    pub(super) begins_chunk: bool,
    /// The outcomes of the chunk are discarded.
    pub(super) cancelled: bool,
}

/// Consecutive items in one segment.
#[derive(Debug)]
pub(super) struct Stretch<'a> {
    /// The ends of the items, a u32 each.
    pub(super) ends: &'a [u8],
    /// The offset that the ends are relative to.
    pub(super) start: u32,
    /// The segment's bytes; the items begin at `offset`.
    pub(super) data: &'a Bytes,
    pub(super) offset: usize,
}

impl Chunk {
    /// Creates a chunk of the items in `segments`; `None` if a segment is malformed or there is no item.
    pub(super) fn new(
        id: u64,
        attempt: u32,
        job: u32,
        first: u64,
        mut segments: impl Iterator<Item = Segment>,
    ) -> Option<Chunk> {
        let head = segments.next().filter(is_sound)?;
        let mut count = items_in(&head);
        let more = match segments.next() {
            None => None,
            Some(second) => {
                let more: Vec<Segment> = std::iter::once(second).chain(segments).collect();
                if !more.iter().all(is_sound) {
                    return None;
                }
                count += more.iter().map(items_in).sum::<u64>();
                Some(Box::new(more))
            }
        };
        first.checked_add(count)?;
        Some(Chunk { id, attempt, job, first, count, left: count, cancelled: false, head, more })
    }

    /// Returns the items from `item` on that are in the same segment.
    pub(super) fn stretch(&self, item: u64) -> Option<Stretch<'_>> {
        let mut at = item.checked_sub(self.first)?;
        for segment in std::iter::once(&self.head).chain(self.more.iter().flat_map(|more| more.iter())) {
            let items = items_in(segment);
            if at < items {
                let skip = usize::try_from(4 * at).ok()?;
                let start = if at == 0 { segment.start } else { end_at(&segment.ends[skip - 4..]) };
                let offset = (start - segment.start) as usize;
                return Some(Stretch { ends: &segment.ends[skip..], start, data: &segment.data, offset });
            }
            at -= items;
        }
        None
    }
}

impl Stretch<'_> {
    /// Returns the size of the first `items` items in bytes.
    pub(super) fn bytes(&self, items: usize) -> usize {
        if items == 0 { 0 } else { (end_at(&self.ends[4 * (items - 1)..]) - self.start) as usize }
    }

    /// Returns the number of items.
    pub(super) fn items(&self) -> usize {
        self.ends.len() / 4
    }

    /// Returns how many items, up to `most`, fit into `bytes` bytes, including their ends.
    pub(super) fn fitting(&self, most: usize, bytes: usize) -> usize {
        let most = most.min(self.items());
        if self.bytes(most) + 4 * most <= bytes {
            return most;
        }
        // Binary search: the size grows with the number of items.
        let (mut fits, mut too_many) = (0, most);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if self.bytes(middle) + 4 * middle <= bytes { fits = middle } else { too_many = middle }
        }
        fits
    }
}

/// Returns the first of `ends`.
fn end_at(ends: &[u8]) -> u32 {
    u32::from_le_bytes([ends[0], ends[1], ends[2], ends[3]])
}

fn items_in(segment: &Segment) -> u64 {
    (segment.ends.len() / 4) as u64
}

/// Returns whether the ends ascend and stay within the data. Checked once here, so that slicing can rely on it.
fn is_sound(segment: &Segment) -> bool {
    if segment.ends.is_empty() || !segment.ends.len().is_multiple_of(4) {
        return false;
    }
    let mut last = segment.start;
    for end in segment.ends.chunks_exact(4).map(end_at) {
        if end < last {
            return false;
        }
        last = end;
    }
    (last - segment.start) as usize <= segment.data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u32, ends: &[u32], bytes: usize) -> Segment {
        Segment {
            data: vec![7; bytes].into(),
            start,
            ends: ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<_>>().into(),
        }
    }

    #[test]
    fn a_chunk_of_two_segments_is_cut_at_any_item() {
        let segments = [segment(10, &[13, 13, 20], 10), segment(0, &[5], 5)];
        let chunk = Chunk::new(1, 1, 0, 100, segments.into_iter()).expect("the segments are valid");
        assert_eq!(chunk.count, 4);
        let stretch = chunk.stretch(101).expect("item 101 is in it");
        assert_eq!((stretch.start, stretch.offset, stretch.items()), (13, 3, 2));
        assert_eq!([stretch.bytes(0), stretch.bytes(1), stretch.bytes(2)], [0, 0, 7]);
        assert_eq!(
            [
                stretch.fitting(9, 3),
                stretch.fitting(9, 4),
                stretch.fitting(9, 14),
                stretch.fitting(9, 15),
                stretch.fitting(1, 99)
            ],
            [0, 1, 1, 2, 1]
        );
        assert_eq!(chunk.stretch(103).map(|last| (last.start, last.items())), Some((0, 1)));
        assert!(chunk.stretch(104).is_none() && chunk.stretch(99).is_none());
    }

    #[test]
    fn malformed_segments_are_rejected() {
        let lies = [
            segment(0, &[], 0),
            segment(0, &[4, 3], 10),
            segment(0, &[4, 11], 10),
            segment(5, &[4], 10),
            Segment { data: Bytes::new(), start: 0, ends: vec![0; 5].into() },
        ];
        for lie in lies {
            assert!(Chunk::new(1, 1, 0, 0, std::iter::once(lie.clone())).is_none(), "{lie:?}");
            assert!(Chunk::new(1, 1, 0, 0, [segment(0, &[1], 1), lie].into_iter()).is_none());
        }
        assert!(Chunk::new(1, 1, 0, 0, std::iter::empty()).is_none());
        assert!(Chunk::new(1, 1, 0, u64::MAX, std::iter::once(segment(0, &[1], 1))).is_none());
    }
}
