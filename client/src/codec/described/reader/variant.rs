//! Reads enums.

use serde::Deserialize;
use serde::de::{DeserializeSeed, EnumAccess, Error, Unexpected, VariantAccess, Visitor};

use super::DescribedReader;
use super::access::name;
use super::parts::Parts;
use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;
use crate::codec::shape::recording::Recorded;
use crate::codec::shape::{Content, Shape};

pub(super) struct Variant<'de, 'r> {
    pub(super) input: &'r mut Input<'de>,
    pub(super) depth: u32,
    /// Whether there is a name without content.
    pub(super) name_only: bool,
    pub(super) recorded: Option<&'r Recorded<'r>>,
}

/// Reads what follows a variant's name.
pub(super) struct VariantContent<'de, 'r> {
    input: &'r mut Input<'de>,
    depth: u32,
    name_only: bool,
    recorded: Option<&'r Recorded<'r>>,
    /// The position of the variant among those that Deserialize knows.
    index: usize,
}

impl<'de, 'r> EnumAccess<'de> for Variant<'de, 'r> {
    type Error = Fault;
    type Variant = VariantContent<'de, 'r>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, VariantContent<'de, 'r>), Fault> {
        let index = self.recorded.zip(name(self.input.bytes)).and_then(|(recorded, name)| match recorded.shape {
            Shape::Enum(variants) => variants.names.iter().position(|asked| *asked == name),
            _ => None,
        });
        let Self { input, depth, name_only, recorded } = self;
        let variant = seed.deserialize(DescribedReader { input: &mut *input, depth, recorder: None })?;
        let recorded = recorded.filter(|_| index.is_some());
        Ok((variant, VariantContent { input, depth, name_only, recorded, index: index.unwrap_or(0) }))
    }
}

impl<'de, 'r> VariantContent<'de, 'r> {
    fn record(&self, make: impl FnOnce() -> Content, alike: impl Fn(&Content) -> bool) -> Parts<'r> {
        let content = self.recorded.and_then(|recorded| recorded.content(self.index, make, alike));
        Parts::of_content(self.recorded, content)
    }

    fn has_content(&self, expected: &str) -> Result<(), Fault> {
        if self.name_only { Err(Fault::invalid_type(Unexpected::UnitVariant, &expected)) } else { Ok(()) }
    }

    /// Reads the content and the END after it.
    fn content<T>(
        self,
        parts: Parts<'_>,
        read: impl FnOnce(DescribedReader<'de, '_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let recorder = parts.part(0, None);
        let value = read(DescribedReader { input: &mut *self.input, depth: self.depth, recorder })?;
        match self.input.byte()? {
            tag::END => Ok(value),
            _ => Err(Fault::custom("a variant has more than one entry")),
        }
    }
}

impl<'de> VariantAccess<'de> for VariantContent<'de, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        self.record(|| Content::Unit, |content| matches!(content, Content::Unit));
        if self.name_only { Ok(()) } else { self.content(Parts::unrecorded(), |content| <()>::deserialize(content)) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.has_content("newtype variant")?;
        let parts = self.record(Content::newtype, |content| matches!(content, Content::Newtype(_)));
        self.content(parts, |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.has_content("tuple variant")?;
        let alike = |content: &Content| matches!(content, Content::Tuple(nodes) if nodes.len() == length);
        let parts = self.record(|| Content::tuple(length), alike);
        self.content(parts, |content| content.elements(visitor, parts))
    }

    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.has_content("struct variant")?;
        let alike = |content: &Content| matches!(content, Content::Struct(fields) if fields.names == names);
        let parts = self.record(|| Content::fields(names), alike);
        self.content(parts, |content| content.fields(visitor, parts))
    }
}
