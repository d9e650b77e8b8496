//! Where output goes.

/// Where a stream goes.
pub(super) trait Sink {
    /// Bytes that it takes now.
    fn room(&mut self) -> usize;
    /// Takes them.
    fn take(&mut self, portion: &[u8]);
}
