use farpool_proto::v1::Items;

use crate::args::Args;
use crate::error::{Error, ErrorKind};

/// Large enough that a batch costs little beside its items, small enough to be read while it is in the cache.
const FULL_BYTES: usize = 256 << 10;

/// Consecutive items, encoded one behind the other.
pub(crate) struct Batch {
    first: u64,
    data: Vec<u8>,
    ends: Vec<u8>,
}

impl Batch {
    /// An empty batch with room for `items` items of `item_bytes` each.
    pub(super) fn new(first: u64, items: u64, item_bytes: u64) -> Self {
        // A batch is full once an item has crossed the limit: with room for that one too it does not have to grow.
        let full = FULL_BYTES as u64 + 2 * item_bytes;
        let data = items.saturating_mul(item_bytes + item_bytes / 8).min(full) as usize;
        let ends = 4 * items.min((FULL_BYTES / 4) as u64) as usize;
        Self { first, data: Vec::with_capacity(data), ends: Vec::with_capacity(ends) }
    }

    /// Appends an item; on an error the batch is as it was.
    #[inline]
    pub(super) fn push<A: Args>(&mut self, args: &A, payload_limit: u64) -> Result<(), Error> {
        let start = self.data.len();
        args.encode(&mut self.data).map_err(|error| Error::new(ErrorKind::Codec, error.0))?;
        let bytes = (self.data.len() - start) as u64;
        if bytes > payload_limit {
            self.data.truncate(start);
            return Err(too_large(bytes, payload_limit));
        }
        // A batch is at most nearly full plus one item, whose limit keeps this below 4 GiB.
        self.ends.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.data.len() >= FULL_BYTES
    }

    pub(super) fn items(&self) -> u64 {
        (self.ends.len() / 4) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.data.len() + self.ends.len()) as u64
    }

    pub(super) fn into_message(self, job: u64) -> Items {
        Items { job, first: self.first, data: self.data.into(), ends: self.ends.into() }
    }
}

#[cold]
fn too_large(bytes: u64, limit: u64) -> Error {
    Error::new(ErrorKind::PayloadTooLarge, format!("the encoded item has {bytes} bytes, and the limit is {limit}"))
}
