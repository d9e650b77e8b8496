//! The bytes that a value is decoded from, and the numbers and texts in them.

use super::fault::Fault;
use super::fault::MAX_DEPTH;
use super::shape::Fingerprint;
use super::varint;

pub(super) struct Input<'de> {
    pub(super) bytes: &'de [u8],
    /// Most levels that the value may have.
    pub(super) levels: u32,
    /// Whether to read structs without names if possible, to learn whether that works.
    pub(super) positional: bool,
    /// The fingerprint of the parts that were read in the compact format, if it is needed.
    pub(super) fingerprint: Option<Fingerprint>,
}

impl<'de> Input<'de> {
    pub(super) fn new(bytes: &'de [u8], levels: u32) -> Self {
        Self { bytes, levels, positional: false, fingerprint: None }
    }

    #[inline]
    pub(super) fn add_to_fingerprint(&mut self, part: u64) {
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.add(part);
        }
    }

    /// Returns the depth one level deeper.
    #[inline]
    pub(super) fn descend(&self, depth: u32) -> Result<u32, Fault> {
        if depth < self.levels { Ok(depth + 1) } else { Err(too_deep(self.levels)) }
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let (&byte, rest) = self.bytes.split_first().ok_or(Fault::Truncated)?;
        self.bytes = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'de [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Fault::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (&taken, rest) = self.bytes.split_first_chunk().ok_or(Fault::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn unsigned(&mut self) -> Result<u64, Fault> {
        let (number, rest) = varint::read(self.bytes).ok_or(Fault::Truncated)?;
        self.bytes = rest;
        Ok(number)
    }

    #[inline]
    pub(super) fn signed(&mut self) -> Result<i64, Fault> {
        Ok(varint::unzigzag(self.unsigned()?))
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::Damaged),
        }
    }

    /// Reads a count, and that many bytes.
    #[inline]
    pub(super) fn counted(&mut self) -> Result<&'de [u8], Fault> {
        let count = self.unsigned()?;
        self.take(usize::try_from(count).map_err(|_| Fault::Truncated)?)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'de str, Fault> {
        std::str::from_utf8(self.counted()?).map_err(|_| Fault::Damaged)
    }

    #[inline]
    pub(super) fn character(&mut self) -> Result<char, Fault> {
        let mut characters = self.text()?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(Fault::Damaged),
        }
    }
}

#[cold]
fn too_deep(levels: u32) -> Fault {
    // A value that is not marked as deep must not be deeper.
    if levels < MAX_DEPTH { Fault::Damaged } else { Fault::TooDeep }
}
