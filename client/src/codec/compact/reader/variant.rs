//! Reads enums.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, VariantAccess, Visitor};

use super::CompactReader;
use crate::codec::fault::Fault;
use crate::codec::shape::part;

/// Identifies a variant by its name, as self-describing formats do. If serde skips a variant,
/// Serialize and Deserialize number the others differently.
pub(super) struct Variant<'de, 'r> {
    pub(super) reader: CompactReader<'de, 'r>,
    pub(super) name: &'static str,
}

impl<'de, 'r> EnumAccess<'de> for Variant<'de, 'r> {
    type Error = Fault;
    type Variant = CompactReader<'de, 'r>;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, CompactReader<'de, 'r>), Fault> {
        Ok((seed.deserialize(BorrowedStrDeserializer::new(self.name))?, self.reader))
    }
}

impl<'de> VariantAccess<'de> for CompactReader<'de, '_> {
    type Error = Fault;

    #[inline]
    fn unit_variant(self) -> Result<(), Fault> {
        self.input.add_to_fingerprint(part::UNIT_VARIANT);
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.input.add_to_fingerprint(part::NEWTYPE_VARIANT);
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::TUPLE_VARIANT);
        self.input.add_to_fingerprint(length as u64);
        self.elements(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::STRUCT_VARIANT);
        self.fields(names, visitor)
    }
}
