//! A destination for output.

/// A destination for a stream's bytes.
pub(super) trait Sink {
    /// Returns how many bytes it takes now.
    fn room(&mut self) -> usize;
    /// Takes a portion, of at most that many bytes.
    fn take(&mut self, portion: &[u8]);
}
