//! Reads sequences, maps, tuples and structs.

use serde::de::{DeserializeSeed, MapAccess, SeqAccess};

use super::CompactReader;
use crate::codec::fault::Fault;
use crate::codec::input::Input;

pub(super) struct Elements<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    pub(super) left: usize,
    /// The names of the fields, if it is a struct.
    pub(super) names: &'static [&'static str],
}

impl Elements<'_, '_> {
    pub(super) fn end(&self) -> Result<(), Fault> {
        end(self.left)
    }
}

/// Checks that nothing is left over.
fn end(left: usize) -> Result<(), Fault> {
    if left == 0 { Ok(()) } else { Err(serde::de::Error::custom("it has more elements than its Deserialize asks for")) }
}

impl<'de> SeqAccess<'de> for &mut Elements<'de, '_> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let element = seed.deserialize(CompactReader { input: &mut *self.input, depth: self.depth });
        element.map(Some).map_err(|fault| match self.names {
            [.., _] if self.names.len() > left => fault.in_field(self.names[self.names.len() - 1 - left]),
            _ => fault,
        })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        // Each element takes at least one byte, so no more memory is reserved than the input justifies.
        Some(self.left.min(self.input.bytes.len()))
    }
}

pub(super) struct Entries<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    pub(super) left: usize,
}

impl Entries<'_, '_> {
    pub(super) fn end(&self) -> Result<(), Fault> {
        end(self.left)
    }
}

impl<'de> MapAccess<'de> for &mut Entries<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(CompactReader { input: &mut *self.input, depth: self.depth }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        seed.deserialize(CompactReader { input: &mut *self.input, depth: self.depth })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.input.bytes.len()))
    }
}
