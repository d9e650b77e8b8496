//! A partially received result that is too large for one record.

use farpool_link::record::HEADER_BYTES;
use farpool_link::{Corrupt, RING_BYTES, Reader};

/// A partially received large result.
///
/// Its length is only the worker's claim. So the buffer grows with what arrives instead of being reserved, and begins
/// with no more than a ring can hold.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) position: u32,
    /// The item counts as failed.
    pub(super) failed: bool,
    pub(super) length: u64,
    received: u64,
    /// `None`: out of memory. The remaining pieces are skipped.
    pub(super) bytes: Option<Vec<u8>>,
}

impl Receiving {
    /// Creates an empty result for the item at `position`.
    pub(super) fn new(position: u32, failed: bool, length: u64) -> Self {
        Self { position, failed, length, received: 0, bytes: Some(Vec::new()) }
    }

    /// Returns whether all pieces have arrived.
    pub(super) fn is_whole(&self) -> bool {
        self.received == self.length
    }

    /// Takes a piece of this many bytes from the ring.
    pub(super) fn add(&mut self, piece: usize, from: &Reader) -> Result<(), Corrupt> {
        let missing = self.length - self.received;
        // Empty pieces could follow each other forever.
        if piece == 0 || piece as u64 > missing {
            return Err(Corrupt);
        }
        self.received += piece as u64;
        if let Some(bytes) = &mut self.bytes {
            // Doubling keeps copies rare.
            let more = (bytes.len().max(RING_BYTES) as u64).min(missing);
            let more = usize::try_from(more).map_err(|_| Corrupt)?;
            if bytes.capacity() - bytes.len() < piece && bytes.try_reserve_exact(more).is_err() {
                self.bytes = None;
            } else {
                from.copy_into(HEADER_BYTES, piece, bytes).ok_or(Corrupt)?;
            }
        }
        Ok(())
    }
}
