mod access;
mod variant;

use serde::de::{Deserializer, Visitor};

use access::{Elements, Entries};
use variant::Variant;

use crate::codec::described::DescribedReader;
use crate::codec::fault::Fault;
use crate::codec::input::Input;
use crate::codec::shape::{Leaf, part};

/// Reads one part.
pub(in crate::codec) struct CompactReader<'de, 'r> {
    input: &'r mut Input<'de>,
    depth: u32,
}

impl<'de, 'r> CompactReader<'de, 'r> {
    pub(in crate::codec) fn new(input: &'r mut Input<'de>) -> Self {
        Self { input, depth: 0 }
    }

    /// Reads this many parts.
    fn elements<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Fault> {
        let depth = self.input.descend(self.depth)?;
        let mut elements = Elements { input: self.input, depth, left: count, names: &[] };
        let value = visitor.visit_seq(&mut elements)?;
        elements.end()?;
        Ok(value)
    }

    fn fields<V: Visitor<'de>>(self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        if let Some(fingerprint) = &mut self.input.fingerprint {
            fingerprint.add_names(names);
        }
        let depth = self.input.descend(self.depth)?;
        // With aliases there are fewer fields than names. The writer has checked that Deserialize asks for exactly these fields.
        visitor.visit_seq(&mut Elements { input: self.input, depth, left: names.len(), names })
    }

    /// Reads a number of parts, each of which takes at least one byte.
    fn count(&mut self) -> Result<usize, Fault> {
        let count = usize::try_from(self.input.unsigned()?).unwrap_or(usize::MAX);
        if count <= self.input.bytes.len() { Ok(count) } else { Err(Fault::Truncated) }
    }
}

macro_rules! leaves {
    ($($method:ident $leaf:ident: $visit:ident(|$input:ident| $read:expr),)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let $input = self.input;
            $input.add_to_fingerprint(Leaf::$leaf.part());
            visitor.$visit($read)
        }
    )*};
}

fn fits<N>(number: Result<N, std::num::TryFromIntError>) -> Result<N, Fault> {
    number.map_err(|_| Fault::Damaged)
}

impl<'de> Deserializer<'de> for CompactReader<'de, '_> {
    type Error = Fault;

    leaves! {
        deserialize_bool Bool: visit_bool(|input| input.boolean()?),
        deserialize_i8 I8: visit_i8(|input| input.byte()? as i8),
        deserialize_i16 I16: visit_i16(|input| fits(input.signed()?.try_into())?),
        deserialize_i32 I32: visit_i32(|input| fits(input.signed()?.try_into())?),
        deserialize_i64 I64: visit_i64(|input| input.signed()?),
        deserialize_i128 I128: visit_i128(|input| i128::from_le_bytes(input.array()?)),
        deserialize_u8 U8: visit_u8(|input| input.byte()?),
        deserialize_u16 U16: visit_u16(|input| fits(input.unsigned()?.try_into())?),
        deserialize_u32 U32: visit_u32(|input| fits(input.unsigned()?.try_into())?),
        deserialize_u64 U64: visit_u64(|input| input.unsigned()?),
        deserialize_u128 U128: visit_u128(|input| u128::from_le_bytes(input.array()?)),
        deserialize_f32 F32: visit_f32(|input| f32::from_le_bytes(input.array()?)),
        deserialize_f64 F64: visit_f64(|input| f64::from_le_bytes(input.array()?)),
        deserialize_char Char: visit_char(|input| input.character()?),
        deserialize_str Str: visit_borrowed_str(|input| input.text()?),
        deserialize_string Str: visit_borrowed_str(|input| input.text()?),
        deserialize_identifier Str: visit_borrowed_str(|input| input.text()?),
        deserialize_bytes Bytes: visit_borrowed_bytes(|input| input.counted()?),
        deserialize_byte_buf Bytes: visit_borrowed_bytes(|input| input.counted()?),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::ANY);
        DescribedReader::within(self.input, self.depth).deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::ANY);
        DescribedReader::within(self.input, self.depth).deserialize_ignored_any(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::OPTION);
        if self.input.boolean()? {
            visitor.visit_some(CompactReader { depth: self.input.descend(self.depth)?, input: self.input })
        } else {
            visitor.visit_none()
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(Leaf::Unit.part());
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(CompactReader { depth: self.input.descend(self.depth)?, input: self.input })
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::SEQ);
        let count = self.count()?;
        self.elements(count, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::TUPLE);
        self.input.add_to_fingerprint(length as u64);
        self.elements(length, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::MAP);
        let left = self.count()?;
        let depth = self.input.descend(self.depth)?;
        let mut entries = Entries { input: self.input, depth, left };
        let value = visitor.visit_map(&mut entries)?;
        entries.end()?;
        Ok(value)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.input.add_to_fingerprint(part::STRUCT);
        self.fields(names, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let place = usize::try_from(self.input.unsigned()?).unwrap_or(usize::MAX);
        let name = *names.get(place).ok_or(Fault::Damaged)?;
        if let Some(fingerprint) = &mut self.input.fingerprint {
            fingerprint.add(part::ENUM);
            fingerprint.add_name(name);
        }
        visitor.visit_enum(Variant {
            reader: CompactReader { depth: self.input.descend(self.depth)?, input: self.input },
            name,
        })
    }
}
