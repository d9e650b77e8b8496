use std::ops::Range;

use bytes::Bytes;
use farpool_core::Run;
use farpool_proto::v1::Items;

use super::send_state::SendState;

/// An `Items` message, and which of its items have their outcome.
pub(super) struct Batch {
    first: u64,
    data: Bytes,
    ends: Bytes,
    pub(super) send_state: SendState,
    /// Number of items without an outcome.
    unfinished: u32,
    /// All items before this one have their outcome: outcomes arrive nearly in order.
    prefix: u32,
    /// One bit per item, once some outcomes came out of order; `prefix` is then unused.
    done: Vec<u64>,
}

impl Batch {
    pub(super) fn new(items: &Items, send_state: SendState) -> Self {
        let unfinished = (items.ends.len() / 4) as u32;
        let (data, ends) = (items.data.clone(), items.ends.clone());
        Self { first: items.first, data, ends, send_state, unfinished, prefix: 0, done: Vec::new() }
    }

    pub(super) fn run(&self) -> Run {
        Run::new(self.first, u64::from(self.len()))
    }

    /// Returns whether all its items have their outcome.
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    /// Notes the outcomes of these items of this batch. Returns false, and changes nothing, if some of them already have an
    /// outcome.
    pub(super) fn note(&mut self, run: Run) -> bool {
        // Both are at most the number of items, which fits 32 bits.
        let (from, count) = ((run.first - self.first) as u32, run.count as u32);
        if self.done.is_empty() {
            if from == self.prefix {
                self.prefix += count;
                self.unfinished -= count;
                return true;
            }
            if from < self.prefix {
                return false;
            }
            self.done = vec![0; self.len().div_ceil(64) as usize];
            each_word(0, self.prefix, |word, bits| self.done[word] |= bits);
        }
        let mut fresh = true;
        each_word(from, count, |word, bits| fresh &= self.done[word] & bits == 0);
        if fresh {
            each_word(from, count, |word, bits| self.done[word] |= bits);
            self.unfinished -= count;
        }
        fresh
    }

    /// Returns the runs of items without an outcome.
    pub(super) fn unfinished_runs(&self) -> impl Iterator<Item = Run> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < self.len() && self.has(at) {
                at += 1;
            }
            let from = at;
            while at < self.len() && !self.has(at) {
                at += 1;
            }
            (at > from).then(|| Run::new(self.first + u64::from(from), u64::from(at - from)))
        })
    }

    /// Returns a message with the items of this run, which is in the batch.
    pub(super) fn cut(&self, job: u64, run: Run) -> Items {
        let from = (run.first - self.first) as usize;
        let (data, ends) = cut(&self.data, &self.ends, from, run.count as usize);
        Items { job, first: run.first, data, ends }
    }

    /// Returns the size of the message with the items of this run.
    pub(super) fn bytes_of(&self, run: Run) -> u64 {
        let (from, count) = ((run.first - self.first) as usize, run.count as usize);
        let Range { start, end } = byte_range(&self.data, &self.ends, from, count);
        (end - start + 4 * count) as u64
    }

    fn len(&self) -> u32 {
        (self.ends.len() / 4) as u32
    }

    fn has(&self, at: u32) -> bool {
        match self.done.get(at as usize / 64) {
            Some(word) => word >> (at % 64) & 1 == 1,
            None => at < self.prefix,
        }
    }
}

/// Returns `count` of some consecutive items (or results), starting at `from`, without copying their bytes.
pub(in crate::cluster) fn cut(data: &Bytes, ends: &Bytes, from: usize, count: usize) -> (Bytes, Bytes) {
    let Range { start, end: stop } = byte_range(data, ends, from, count);
    let kept = ends.slice(4 * from..4 * (from + count));
    if start == 0 {
        return (data.slice(..stop), kept);
    }
    let rebased = kept.chunks_exact(4).zip(from..).flat_map(|(_, item)| {
        let end = end_of(data, ends, item).saturating_sub(start) as u32;
        end.to_le_bytes()
    });
    (data.slice(start..stop), rebased.collect())
}

/// Returns the byte range of these items in `data`.
fn byte_range(data: &Bytes, ends: &Bytes, from: usize, count: usize) -> Range<usize> {
    let start = if from == 0 { 0 } else { end_of(data, ends, from - 1) };
    start..if count == 0 { start } else { end_of(data, ends, from + count - 1).max(start) }
}

fn end_of(data: &Bytes, ends: &Bytes, item: usize) -> usize {
    match ends.get(4 * item..).and_then(|bytes| bytes.first_chunk()) {
        // Only a coordinator's message can have invalid ends: the decoder reports them.
        Some(end) => (u32::from_le_bytes(*end) as usize).min(data.len()),
        None => data.len(),
    }
}

/// Calls `with` for each word that has bits of the `count` items starting at `from`, with these bits.
fn each_word(from: u32, count: u32, mut with: impl FnMut(usize, u64)) {
    let (mut at, end) = (from, from + count);
    while at < end {
        let bits = (end - at).min(64 - at % 64);
        with(at as usize / 64, (u64::MAX >> (64 - bits)) << (at % 64));
        at += bits;
    }
}
