//! Reads sequences and maps.

use serde::de::{DeserializeSeed, MapAccess, SeqAccess};

use super::DescribedReader;
use super::parts::Parts;
use super::skip::skip;
use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;

pub(super) struct Elements<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    pub(super) parts: Parts<'r>,
    pub(super) index: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.input.bytes.first() == Some(&tag::END) {
            return Ok(None);
        }
        let recorder = self.parts.part(self.index, None);
        self.index += 1;
        seed.deserialize(DescribedReader { input: self.input, depth: self.depth, recorder }).map(Some)
    }
}

pub(super) struct Entries<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    pub(super) parts: Parts<'r>,
    /// The input from the last key on.
    pub(super) key: &'de [u8],
}

impl<'de> Entries<'de, '_> {
    fn name(&self) -> Option<&'de str> {
        name(self.key)
    }
}

/// Returns the text at the start of these bytes.
pub(super) fn name(bytes: &[u8]) -> Option<&str> {
    let mut input = Input::new(bytes, 0);
    match input.byte() {
        Ok(tag::STR) => input.text().ok(),
        _ => None,
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if self.input.bytes.first() == Some(&tag::END) {
            return Ok(None);
        }
        self.key = self.input.bytes;
        let recorder = self.parts.key();
        seed.deserialize(DescribedReader { input: self.input, depth: self.depth, recorder }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let recorder = self.parts.part(0, self.parts.struct_fields().and_then(|_| self.name()));
        let value = seed.deserialize(DescribedReader { input: self.input, depth: self.depth, recorder });
        value.map_err(|fault| match self.name() {
            Some(name) => fault.in_field(name),
            None => fault,
        })
    }
}

/// Reads the fields of a struct without their names: see [`Input::positional`].
pub(super) struct Positional<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    pub(super) parts: Parts<'r>,
    /// The number of fields that were asked for.
    pub(super) asked: usize,
    /// Whether more fields were asked for than there are.
    pub(super) too_many: bool,
}

impl<'de> SeqAccess<'de> for &mut Positional<'de, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.input.bytes.first() == Some(&tag::END) {
            self.too_many = true;
            return Ok(None);
        }
        self.asked += 1;
        let recorder = self.parts.part(0, name(self.input.bytes));
        skip(self.input)?;
        seed.deserialize(DescribedReader { input: self.input, depth: self.depth, recorder }).map(Some)
    }
}
