//! Where a record is.

/// Where a record is: the segment, the byte at which it begins there, and how long it is with its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Place {
    /// Bytes that the record takes up in its segment.
    pub(super) fn bytes(self) -> u64 {
        self.length.into()
    }

    /// The first byte behind it.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}
