//! Reading records of the journal without waiting for them.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::super::super::link::{Input, Link, Read, WasRead};
use crate::journal::{Place, Reader};

/// Bytes of records that are read in one go, if there are several.
pub(super) const READ_BYTES: u64 = 1 << 20;

/// A record, as the index of the journal has it: first item, how many, and where.
pub(super) type Piece = (u64, u64, Place);

/// Those that are read in one go, of all that are wanted.
pub(super) fn some(pieces: impl Iterator<Item = Piece>, bytes: u64) -> Vec<Piece> {
    let (mut some, mut together) = (Vec::new(), 0);
    for piece in pieces {
        let length = piece.2.bytes();
        if !some.is_empty() && together + length > bytes {
            break;
        }
        together += length;
        some.push(piece);
    }
    some
}

/// Reads, and tells the loop.
pub(super) fn read<T: Send + 'static>(
    link: &Link,
    reads: &Arc<Semaphore>,
    read: impl FnOnce() -> T + Send + 'static,
    tell: impl FnOnce(T) -> WasRead + Send + 'static,
) {
    let (link, reads) = (link.clone(), Arc::clone(reads));
    tokio::spawn(async move {
        let Ok(_turn) = reads.acquire_owned().await else { return };
        // What panics there was reported by itself, and the loop's end takes the answer with it.
        let Ok(result) = link.blocking.run(read).await else { return };
        let _ = link.send(Input::WasRead(tell(result))).await;
    });
}

/// Reads records one behind the other, up to the first that cannot be read.
pub(super) fn read_all(reader: &Reader, pieces: Vec<Piece>) -> Vec<Read> {
    let mut all = Vec::with_capacity(pieces.len());
    for (first, count, place) in pieces {
        let read = reader.read(place);
        let failed = read.is_err();
        all.push((first, count, read));
        if failed {
            break;
        }
    }
    all
}
