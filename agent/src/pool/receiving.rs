//! A result that is too large for one record, of which some pieces are here.

use farpool_link::record::HEADER_BYTES;
use farpool_link::{Corrupt, RING_BYTES, Reader};

/// A large result of which some pieces are here.
///
/// Its length is only what the worker says. So no memory is reserved for what was announced: the buffer grows with what
/// has come, and begins with no more than the ring could hold.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) position: u32,
    /// The item counts as failed.
    pub(super) failed: bool,
    pub(super) length: u64,
    received: u64,
    /// None: there was no memory for it. The remaining pieces are passed over.
    pub(super) bytes: Option<Vec<u8>>,
}

impl Receiving {
    /// The result of the item at `position`, of which nothing is here yet.
    pub(super) fn new(position: u32, failed: bool, length: u64) -> Self {
        Self { position, failed, length, received: 0, bytes: Some(Vec::new()) }
    }

    /// Whether all pieces are here.
    pub(super) fn is_whole(&self) -> bool {
        self.received == self.length
    }

    /// Takes a piece of so many bytes out of the ring.
    pub(super) fn add(&mut self, piece: usize, from: &mut Reader) -> Result<(), Corrupt> {
        let missing = self.length - self.received;
        // One without bytes could be followed by others for ever.
        if piece == 0 || piece as u64 > missing {
            return Err(Corrupt);
        }
        self.received += piece as u64;
        if let Some(bytes) = &mut self.bytes {
            // Growing twofold keeps copies rare.
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
