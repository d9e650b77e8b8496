//! Receives results that are too large for one record, in pieces.

use farpool_link::Corrupt;
use farpool_link::record::Header;
use farpool_proto::v1::FailureKind;

use super::WorkerPool;
use super::receiving::Receiving;

impl WorkerPool {
    pub(super) fn begin_receiving(&mut self, at: usize, header: Header) -> Result<(), Corrupt> {
        let worker = &mut self.workers[at];
        let length = u64::from_le_bytes(worker.payload(header)?);
        if length == 0 || length > self.settings.payload_limit || worker.receiving.is_some() {
            return Err(Corrupt);
        }
        let (position, failed) = (header.position, header.slot == 1);
        worker.receiving = Some(Receiving::new(position, failed, length));
        Ok(())
    }

    pub(super) fn receive(&mut self, at: usize, piece: usize) -> Result<(), Corrupt> {
        let worker = &mut self.workers[at];
        let receiving = worker.receiving.as_mut().ok_or(Corrupt)?;
        receiving.add(piece, &mut worker.from)?;
        if !receiving.is_whole() {
            // The worker keeps writing while the rest is read.
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
                    "the result is {length} bytes long, and the agent on this host could not allocate that much memory: return less, or run fewer such items at once"
                );
                let mut failure = self.failure(FailureKind::PayloadTooLarge, message);
                failure.pid = pid;
                self.report_failed(slot, item, failure);
            }
        }
        Ok(())
    }
}
