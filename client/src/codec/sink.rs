//! Where encoded bytes go: a buffer that grows, or room that does not.

use super::fault::Fault;
use super::varint;

pub(super) trait Sink {
    fn push(&mut self, byte: u8) -> Result<(), Fault>;

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fault>;

    /// Announces that this many bytes follow.
    fn reserve(&mut self, bytes: usize);

    fn position(&self) -> usize;

    /// Removes what was written since that position.
    fn truncate(&mut self, position: usize);

    /// Changes a byte that was written before.
    fn set(&mut self, position: usize, byte: u8);

    #[inline]
    fn varint(&mut self, count: u64) -> Result<(), Fault> {
        if count < 0x80 {
            return self.push(count as u8);
        }
        let mut bytes = [0; varint::MAX_BYTES];
        let length = varint::write(count, &mut bytes);
        self.extend(&bytes[..length])
    }

    /// Writes a count of bytes, and the bytes.
    #[inline]
    fn counted(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.varint(bytes.len() as u64)?;
        self.extend(bytes)
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), Fault> {
        Vec::push(self, byte);
        Ok(())
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn reserve(&mut self, bytes: usize) {
        Vec::reserve(self, bytes);
    }

    #[inline]
    fn position(&self) -> usize {
        self.len()
    }

    fn truncate(&mut self, position: usize) {
        Vec::truncate(self, position);
    }

    fn set(&mut self, position: usize, byte: u8) {
        self[position] = byte;
    }
}

/// A slice that is filled from its start.
pub(super) struct SliceSink<'a> {
    bytes: &'a mut [u8],
    used: usize,
    /// Whether something did not fit.
    full: bool,
}

impl<'a> SliceSink<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, used: 0, full: false }
    }

    /// Returns how many bytes were written; `None` if some did not fit, even if a Serialize has swallowed the error.
    pub(super) fn used(&self) -> Option<usize> {
        (!self.full).then_some(self.used)
    }

    #[cold]
    fn overflow<T>(&mut self) -> Result<T, Fault> {
        self.full = true;
        Err(Fault::Full)
    }
}

impl Sink for SliceSink<'_> {
    #[inline]
    fn push(&mut self, byte: u8) -> Result<(), Fault> {
        let Some(room) = self.bytes.get_mut(self.used) else { return self.overflow() };
        *room = byte;
        self.used += 1;
        Ok(())
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let end = self.used + bytes.len();
        let Some(room) = self.bytes.get_mut(self.used..end) else { return self.overflow() };
        room.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }

    #[inline]
    fn reserve(&mut self, _: usize) {}

    #[inline]
    fn position(&self) -> usize {
        self.used
    }

    fn truncate(&mut self, position: usize) {
        self.used = position;
    }

    fn set(&mut self, position: usize, byte: u8) {
        self.bytes[position] = byte;
    }
}
