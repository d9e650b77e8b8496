//! Copies results out of the memory that is shared with a worker.

use bytes::{BufMut, BytesMut};
use farpool_link::record::HEADER_BYTES;
use farpool_link::{Corrupt, Reader};

/// Results of a run that are larger than this are reported in several parts.
const RUN_BYTES: usize = 1 << 20;

/// The results of runs of items, concatenated.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) data: BytesMut,
    /// The end of each result, relative to the start of its run.
    pub(super) ends: BytesMut,
}

/// The results of the latest run.
pub(super) struct RunResults<'a> {
    all: &'a mut Results,
    start: usize,
}

impl Results {
    /// Returns the results from `start` on, to which more can be added.
    pub(super) fn from(&mut self, start: usize) -> RunResults<'_> {
        RunResults { all: self, start }
    }
}

impl RunResults<'_> {
    /// Adds a result: the payload, of this length, of the front record of `ring`.
    #[inline]
    pub(super) fn push(&mut self, ring: &Reader, length: usize) -> Result<(), Corrupt> {
        let Results { data, ends } = &mut *self.all;
        data.reserve(length);
        ring.copy_into(HEADER_BYTES, length, data).ok_or(Corrupt)?;
        ends.put_u32_le(u32::try_from(data.len() - self.start).expect("a run's results are bounded"));
        Ok(())
    }

    /// Returns whether further results belong into another part of the report.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.all.data.len() - self.start >= RUN_BYTES
    }
}
