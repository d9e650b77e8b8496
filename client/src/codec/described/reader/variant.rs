//! Enums while they are being read.

use serde::Deserialize;
use serde::de::{DeserializeSeed, EnumAccess, Error, Unexpected, VariantAccess, Visitor};

use super::Reader;
use super::access::name;
use super::parts::Parts;
use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;
use crate::codec::shape::notes::Noted;
use crate::codec::shape::{Ask, Content};

pub(super) struct Variant<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    /// Whether it is a name without content.
    pub(super) alone: bool,
    pub(super) noted: Option<&'r Noted<'r>>,
}

/// What comes behind a variant's name.
pub(super) struct Rest<'de, 'r> {
    input: &'r mut Input<'de>,
    depth: u32,
    alone: bool,
    noted: Option<&'r Noted<'r>>,
    /// Where the variant stands among those that were asked for.
    place: usize,
}

impl<'de, 'r> EnumAccess<'de> for Variant<'de, 'r> {
    type Error = Fault;
    type Variant = Rest<'de, 'r>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Rest<'de, 'r>), Fault> {
        let place = self.noted.zip(name(self.input.bytes)).and_then(|(noted, name)| match noted.ask {
            Ask::Enum(variants) => variants.names.iter().position(|asked| *asked == name),
            _ => None,
        });
        let Self { input, depth, alone, noted } = self;
        let variant = seed.deserialize(Reader { input: &mut *input, depth, place: None })?;
        let noted = noted.filter(|_| place.is_some());
        Ok((variant, Rest { input, depth, alone, noted, place: place.unwrap_or(0) }))
    }
}

impl<'de, 'r> Rest<'de, 'r> {
    fn note(&self, make: impl FnOnce() -> Content, alike: impl Fn(&Content) -> bool) -> Parts<'r> {
        let content = self.noted.and_then(|noted| noted.content(self.place, make, alike));
        Parts::of_content(self.noted, content)
    }

    fn has_content(&self, expected: &str) -> Result<(), Fault> {
        if self.alone { Err(Fault::invalid_type(Unexpected::UnitVariant, &expected)) } else { Ok(()) }
    }

    /// Reads the content and the end behind it.
    fn content<T>(self, parts: Parts<'_>, read: impl FnOnce(Reader<'de, '_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let place = parts.part(0, None);
        let value = read(Reader { input: &mut *self.input, depth: self.depth, place })?;
        match self.input.byte()? {
            tag::END => Ok(value),
            _ => Err(Fault::custom("a variant has more than one entry")),
        }
    }
}

impl<'de> VariantAccess<'de> for Rest<'de, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.note(|| Content::Unit, |content| matches!(content, Content::Unit));
        if self.alone { Ok(()) } else { self.content(Parts::unnoted(), |content| <()>::deserialize(content)) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.has_content("newtype variant")?;
        let parts = self.note(Content::newtype, |content| matches!(content, Content::Newtype(_)));
        self.content(parts, |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.has_content("tuple variant")?;
        let alike = |content: &Content| matches!(content, Content::Tuple(nodes) if nodes.len() == length);
        let parts = self.note(|| Content::tuple(length), alike);
        self.content(parts, |content| content.elements(visitor, parts))
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.has_content("struct variant")?;
        let alike = |content: &Content| matches!(content, Content::Struct(fields) if fields.names == names);
        let parts = self.note(|| Content::fields(names), alike);
        self.content(parts, |content| content.fields(visitor, parts))
    }
}
