//! Results that are too large for one record, on their way in pieces.

use farpool_link::record::{HEADER_BYTES, Header};
use farpool_link::{Corrupt, RING_BYTES};
use farpool_proto::v1::FailureKind;

use super::WorkerPool;
use super::worker::Worker;

/// A large result of which some pieces are here.
///
/// Its length is only what the worker says. So no memory is reserved for what was announced: the buffer grows with what
/// has come, and begins with no more than the ring could hold.
#[derive(Debug)]
pub(super) struct Receiving {
    position: u32,
    /// The item counts as failed.
    failed: bool,
    length: u64,
    received: u64,
    /// None: there was no memory for it. The remaining pieces are passed over.
    bytes: Option<Vec<u8>>,
}

impl Receiving {
    fn is_whole(&self) -> bool {
        self.received == self.length
    }
}

impl WorkerPool {
    pub(super) fn begin_receiving(&mut self, at: usize, header: Header) -> Result<(), Corrupt> {
        let worker = &mut self.workers[at];
        let length = u64::from_le_bytes(worker.payload(header)?);
        if length == 0 || length > self.settings.payload_limit || worker.receiving.is_some() {
            return Err(Corrupt);
        }
        let (position, failed) = (header.position, header.slot == 1);
        worker.receiving = Some(Receiving { position, failed, length, received: 0, bytes: Some(Vec::new()) });
        Ok(())
    }

    pub(super) fn receive(&mut self, at: usize, piece: usize) -> Result<(), Corrupt> {
        let worker = &mut self.workers[at];
        if !worker.receive_piece(piece)?.is_whole() {
            // The worker goes on writing while the rest is read.
            return Ok(());
        }
        let Some(Receiving { position, failed, length, bytes, .. }) = worker.receiving.take() else {
            return Err(Corrupt);
        };
        let (slot, item) = worker.finish(position).ok_or(Corrupt)?;
        let pid = worker.known_pid();
        match bytes {
            Some(bytes) => {
                let chunk = &self.chunks[slot as usize];
                if !chunk.cancelled {
                    self.report.done_large(chunk, item, bytes, failed);
                }
                self.settle(slot, 1);
            }
            None => {
                let message = format!(
                    "the result is {length} bytes long, and the agent on this host could not get so much memory: return less, or run fewer such items at once"
                );
                let mut failure = self.failure(FailureKind::PayloadTooLarge, message);
                failure.pid = pid;
                self.tell_failed(slot, item, failure);
            }
        }
        Ok(())
    }
}

impl Worker {
    fn receive_piece(&mut self, piece: usize) -> Result<&Receiving, Corrupt> {
        let receiving = self.receiving.as_mut().ok_or(Corrupt)?;
        let missing = receiving.length - receiving.received;
        // One without bytes could be followed by others for ever.
        if piece == 0 || piece as u64 > missing {
            return Err(Corrupt);
        }
        receiving.received += piece as u64;
        if let Some(bytes) = &mut receiving.bytes {
            // Growing twofold keeps copies rare.
            let more = (bytes.len().max(RING_BYTES) as u64).min(missing);
            let more = usize::try_from(more).map_err(|_| Corrupt)?;
            if bytes.capacity() - bytes.len() < piece && bytes.try_reserve_exact(more).is_err() {
                receiving.bytes = None;
            } else {
                self.from.copy_into(HEADER_BYTES, piece, bytes).ok_or(Corrupt)?;
            }
        }
        Ok(receiving)
    }
}
