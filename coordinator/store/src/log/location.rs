/// The location of a record: its segment, its first byte there, and its length including the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordLocation {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl RecordLocation {
    /// Returns the bytes that the record takes in its segment.
    pub(super) fn bytes(self) -> u64 {
        self.length.into()
    }

    /// Returns the first byte after it.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}
