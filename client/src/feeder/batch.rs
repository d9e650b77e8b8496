use std::cell::Cell;

use bytes::Bytes;
use farpool_proto::ends;
use farpool_proto::v1::Items;
use farpool_session::ItemLimit;

use crate::args::Args;
use crate::error::{Error, ErrorKind};

/// Large enough that the overhead of a batch is small, small enough that it is read while it is in the cache.
const FULL_BYTES: usize = 256 << 10;

/// Consecutive items, encoded one after another.
pub(crate) struct Batch {
    first: u64,
    data: Vec<u8>,
    ends: Vec<u8>,
}

impl Batch {
    /// Creates an empty batch with room for `items` items of `item_bytes` each.
    pub(super) fn new(first: u64, items: u64, item_bytes: u64) -> Self {
        // A batch is full once an item crosses the limit: with room for that item too, it need not grow.
        let full = FULL_BYTES as u64 + 2 * item_bytes;
        let data = items.saturating_mul(item_bytes + item_bytes / 8).min(full) as usize;
        let ends = 4 * items.min((FULL_BYTES / 4) as u64) as usize;
        Self { first, data: Vec::with_capacity(data), ends: Vec::with_capacity(ends) }
    }

    /// Appends an item; on an error the batch is unchanged.
    #[inline]
    pub(super) fn push<A: Args>(&mut self, args: &A, limit: ItemLimit) -> Result<(), Error> {
        encode(args, &mut self.data, limit)?;
        // A batch is at most full plus one item, and the limit on items keeps that below 4 GiB.
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

thread_local! {
    /// The buffer in which this thread encoded its last single item.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Items up to this size are copied out of the thread's buffer, which the thread keeps.
const SMALL_ITEM: usize = 4 << 10;

/// Returns the message with the only item of a job.
#[inline]
pub(super) fn only_item<A: Args>(args: &A, job: u64, limit: ItemLimit) -> Result<Items, Error> {
    // A thread that is ending may have no buffer.
    let mut data = SPARE.try_with(Cell::take).unwrap_or_default();
    data.clear();
    encode(args, &mut data, limit)?;
    let ends = ends::of_single(1, data.len());
    let ends = ends.unwrap_or_else(|| Bytes::copy_from_slice(&(data.len() as u32).to_le_bytes()));
    if data.len() > SMALL_ITEM {
        return Ok(Items { job, first: 0, data: data.into(), ends });
    }
    let message = Items { job, first: 0, data: Bytes::copy_from_slice(&data), ends };
    let _ = SPARE.try_with(|spare| spare.set(data));
    Ok(message)
}

/// Appends an item; on an error `data` is unchanged.
#[inline]
fn encode<A: Args>(args: &A, data: &mut Vec<u8>, limit: ItemLimit) -> Result<(), Error> {
    let start = data.len();
    args.encode(data).map_err(|error| Error::new(ErrorKind::Codec, error.0))?;
    limit.check(data.len() - start).inspect_err(|_| data.truncate(start)).map_err(Error::from)
}
