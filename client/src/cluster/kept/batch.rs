use bytes::Bytes;
use farpool_core::Run;
use farpool_proto::v1::Items;

/// An `Items` message that was sent, and which of its items have had their outcome.
pub(super) struct Batch {
    first: u64,
    data: Bytes,
    ends: Bytes,
    /// When it was said, counted over the session.
    serial: u64,
    /// Items without outcome.
    left: u32,
    /// Outcomes come nearly in order: of items before this one each has had its own.
    prefix: u32,
    /// A bit an item, once some came out of order; then `prefix` means nothing.
    done: Vec<u64>,
}

impl Batch {
    pub(super) fn new(items: &Items, serial: u64) -> Self {
        let left = (items.ends.len() / 4) as u32;
        let (data, ends) = (items.data.clone(), items.ends.clone());
        Self { first: items.first, data, ends, serial, left, prefix: 0, done: Vec::new() }
    }

    pub(super) fn run(&self) -> Run {
        Run::new(self.first, u64::from(self.len()))
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether each of its items has had its outcome.
    pub(super) fn is_through(&self) -> bool {
        self.left == 0
    }

    /// Notes the outcomes of these items, which are of this batch. False, with nothing changed, if some of them had
    /// theirs already.
    pub(super) fn note(&mut self, run: Run) -> bool {
        // Both are below the number of items, which is in 32 bits.
        let (from, count) = ((run.first - self.first) as u32, run.count as u32);
        if self.done.is_empty() {
            if from == self.prefix {
                self.prefix += count;
                self.left -= count;
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
            self.left -= count;
        }
        fresh
    }

    /// The runs of items that lack their outcome.
    pub(super) fn lacking(&self) -> impl Iterator<Item = Run> {
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

    /// The message with the items of this run, which is within the batch.
    pub(super) fn cut(&self, job: u64, run: Run) -> Items {
        let from = (run.first - self.first) as usize;
        let (data, ends) = cut(&self.data, &self.ends, from, run.count as usize);
        Items { job, first: run.first, data, ends }
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

/// Of items, or results, that lie one behind the other those from `from` on, so many: without touching their bytes.
pub(in crate::cluster) fn cut(data: &Bytes, ends: &Bytes, from: usize, count: usize) -> (Bytes, Bytes) {
    let end_of = |item: usize| match ends.get(4 * item..).and_then(|bytes| bytes.first_chunk()) {
        // Ends that point elsewhere are a coordinator's own: whoever decodes them says so.
        Some(end) => (u32::from_le_bytes(*end) as usize).min(data.len()),
        None => data.len(),
    };
    let start = if from == 0 { 0 } else { end_of(from - 1) };
    let stop = if count == 0 { start } else { end_of(from + count - 1).max(start) };
    let kept = ends.slice(4 * from..4 * (from + count));
    if start == 0 {
        return (data.slice(..stop), kept);
    }
    let rebased = kept.chunks_exact(4).zip(from..).flat_map(|(_, item)| {
        let end = end_of(item).saturating_sub(start) as u32;
        end.to_le_bytes()
    });
    (data.slice(start..stop), rebased.collect())
}

/// Calls `with` for each word of bits that `count` items from `from` on have a part in, with their bits.
fn each_word(from: u32, count: u32, mut with: impl FnMut(usize, u64)) {
    let (mut at, end) = (from, from + count);
    while at < end {
        let bits = (end - at).min(64 - at % 64);
        with(at as usize / 64, (u64::MAX >> (64 - bits)) << (at % 64));
        at += bits;
    }
}
