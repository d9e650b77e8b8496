mod access;
mod any;
mod parts;
mod skip;
mod variant;

use serde::de::{Deserializer, Visitor};

use access::{Elements, Entries};
use parts::Parts;
use skip::skip;
use variant::Variant;

use super::tag;
use crate::codec::fault::Fault;
use crate::codec::input::Input;
use crate::codec::shape::Leaf;
use crate::codec::shape::recording::Recorder;

/// Reads one part.
pub(in crate::codec) struct DescribedReader<'de, 'r> {
    input: &'r mut Input<'de>,
    depth: u32,
    /// Records what the visitor asks for.
    recorder: Option<Recorder<'r>>,
}

/// Returns the address of the code that a visitor runs. A visitor without data depends on nothing else; for others, returns 0.
fn identity<V, F>(visit: F, address: impl FnOnce(F) -> usize) -> usize {
    if size_of::<V>() == 0 { address(visit) } else { 0 }
}

impl<'de, 'r> DescribedReader<'de, 'r> {
    pub(in crate::codec) fn new(input: &'r mut Input<'de>, recorder: Option<Recorder<'r>>) -> Self {
        Self { input, depth: 0, recorder }
    }

    /// Reads a self-describing part within a compact value, `depth` levels deep.
    pub(in crate::codec) fn within(input: &'r mut Input<'de>, depth: u32) -> Self {
        Self { input, depth, recorder: None }
    }

    fn tag(&self) -> Result<u8, Fault> {
        self.input.bytes.first().copied().ok_or(Fault::Truncated)
    }

    /// One level deeper.
    fn descend(self) -> Result<Self, Fault> {
        Ok(Self { depth: self.input.descend(self.depth)?, ..self })
    }

    fn leaf<V: Visitor<'de>>(self, leaf: Leaf, visitor: V) -> Result<V::Value, Fault> {
        if let Some(recorder) = self.recorder {
            recorder.leaf(leaf);
        }
        self.visit_any(visitor, Parts::unrecorded())
    }

    fn seq_identity<V: Visitor<'de>>() -> usize {
        identity::<V, fn(V, Elements<'de, 'r>) -> Result<V::Value, Fault>>(V::visit_seq, |visit| visit as usize)
    }

    fn map_identity<V: Visitor<'de>>() -> usize {
        identity::<V, fn(V, Entries<'de, 'r>) -> Result<V::Value, Fault>>(V::visit_map, |visit| visit as usize)
    }
}

macro_rules! leaves {
    ($($method:ident $leaf:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.leaf(Leaf::$leaf, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for DescribedReader<'de, '_> {
    type Error = Fault;

    leaves! {
        deserialize_bool Bool,
        deserialize_i8 I8,
        deserialize_i16 I16,
        deserialize_i32 I32,
        deserialize_i64 I64,
        deserialize_i128 I128,
        deserialize_u8 U8,
        deserialize_u16 U16,
        deserialize_u32 U32,
        deserialize_u64 U64,
        deserialize_u128 U128,
        deserialize_f32 F32,
        deserialize_f64 F64,
        deserialize_str Str,
        deserialize_string Str,
        // Recorded as texts, which most keys and names are. Values with other ones differ from this record, so they
        // stay self-describing.
        deserialize_identifier Str,
        deserialize_bytes Bytes,
        deserialize_byte_buf Bytes,
        deserialize_unit Unit,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(recorder) = self.recorder {
            recorder.any();
        }
        self.visit_any(visitor, Parts::unrecorded())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Some(recorder) = self.recorder {
            recorder.any();
        }
        skip(self.input)?;
        visitor.visit_unit()
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.tag()? != tag::CHAR {
            return self.leaf(Leaf::Char, visitor);
        }
        if let Some(recorder) = self.recorder {
            recorder.leaf(Leaf::Char);
        }
        self.input.byte()?;
        visitor.visit_char(self.input.character()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let by_code = identity::<V, fn(V, Self) -> Result<V::Value, Fault>>(V::visit_some, |visit| visit as usize);
        let recorded = self.recorder.and_then(|recorder| recorder.option(by_code));
        match self.tag()? {
            tag::NONE | tag::UNIT => {
                self.input.byte()?;
                return visitor.visit_none();
            }
            tag::SOME => _ = self.input.byte()?,
            _ => {}
        }
        let recorder = Parts::of(&recorded).part(0, None);
        visitor.visit_some(DescribedReader { depth: self.input.descend(self.depth)?, input: self.input, recorder })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self.descend()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let recorded = self.recorder.and_then(|recorder| recorder.seq(Self::seq_identity::<V>()));
        self.elements(visitor, Parts::of(&recorded))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Fault> {
        let recorded = self.recorder.and_then(|recorder| recorder.tuple(Self::seq_identity::<V>(), length));
        self.elements(visitor, Parts::of(&recorded))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let recorded = self.recorder.and_then(|recorder| recorder.map(Self::map_identity::<V>()));
        self.visit_any(visitor, Parts::of(&recorded))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let recorded = self.recorder.and_then(|recorder| recorder.fields(Self::map_identity::<V>(), names));
        self.fields(visitor, Parts::of(&recorded))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        type Visit<'de, 'r, V> = fn(V, Variant<'de, 'r>) -> Result<<V as Visitor<'de>>::Value, Fault>;
        let by_code = identity::<V, Visit<'de, '_, V>>(V::visit_enum, |visit| visit as usize);
        let recorded = self.recorder.and_then(|recorder| recorder.variants(by_code, names));
        while self.tag()? == tag::SOME {
            self.input.byte()?;
            self = self.descend()?;
        }
        let name_only = match self.tag()? {
            tag::STR => true,
            tag::MAP | tag::STRUCT | tag::WHOLE_STRUCT => false,
            // Not an enum: the visitor reports the error.
            _ => return self.visit_any(visitor, Parts::unrecorded()),
        };
        if !name_only {
            self.input.byte()?;
            self = self.descend()?;
        }
        visitor.visit_enum(Variant { input: self.input, depth: self.depth, name_only, recorded: recorded.as_ref() })
    }
}
