mod compound;

use serde::{Serialize, Serializer};

use compound::{Map, Seq, Struct};

use super::tag;
use crate::codec::fault::Fault;
use crate::codec::out::{Out, WriteLeaf};
use crate::codec::sink::Sink;

/// Writes one part, `depth` levels deep.
pub(in crate::codec) struct DescribedWriter<'w, 'a, S> {
    out: &'w mut Out<'a, S>,
    depth: u32,
}

impl<'w, 'a, S: Sink> DescribedWriter<'w, 'a, S> {
    pub(in crate::codec) fn new(out: &'w mut Out<'a, S>, depth: u32) -> Self {
        Self { out, depth }
    }

    pub(in crate::codec) fn write<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        Self::part(self.out, self.depth, value)
    }

    /// Writes a part of this part.
    fn part<T: Serialize + ?Sized>(out: &mut Out<'a, S>, depth: u32, value: &T) -> Result<(), Fault> {
        out.descend(depth, |out| value.serialize(DescribedWriter { out, depth }))
    }

    fn tagged(self, tag: u8, bytes: &[u8]) -> Result<(), Fault> {
        self.out.sink.push(tag)?;
        self.out.sink.extend(bytes)
    }

    /// Begins a variant with content: a map with one entry.
    fn variant(&mut self, variant: &str) -> Result<(), Fault> {
        self.out.sink.push(tag::MAP)?;
        self.out.sink.push(tag::STR)?;
        self.out.sink.counted(variant.as_bytes())
    }

    fn seq(self, ends: u8) -> Result<Seq<'w, 'a, S>, Fault> {
        self.out.sink.push(tag::SEQ)?;
        Ok(Seq { out: self.out, depth: self.depth + u32::from(ends), ends })
    }

    fn fields(self, ends: u8) -> Result<Struct<'w, 'a, S>, Fault> {
        let start = self.out.sink.position();
        self.out.sink.push(tag::WHOLE_STRUCT)?;
        Ok(Struct { out: self.out, depth: self.depth + u32::from(ends), start, ends })
    }
}

macro_rules! numbers {
    ($($method:ident($number:ty) as $wide:ident $(,)?)*) => {$(
        fn $method(self, number: $number) -> Result<(), Fault> {
            self.$wide(number.into())
        }
    )*};
}

impl<'w, 'a, S: Sink> Serializer for DescribedWriter<'w, 'a, S> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Seq<'w, 'a, S>;
    type SerializeTuple = Seq<'w, 'a, S>;
    type SerializeTupleStruct = Seq<'w, 'a, S>;
    type SerializeTupleVariant = Seq<'w, 'a, S>;
    type SerializeMap = Map<'w, 'a, S>;
    type SerializeStruct = Struct<'w, 'a, S>;
    type SerializeStructVariant = Struct<'w, 'a, S>;

    numbers! {
        serialize_i8(i8) as serialize_i64,
        serialize_i16(i16) as serialize_i64,
        serialize_i32(i32) as serialize_i64,
        serialize_u8(u8) as serialize_u64,
        serialize_u16(u16) as serialize_u64,
        serialize_u32(u32) as serialize_u64,
    }

    fn serialize_bool(self, value: bool) -> Result<(), Fault> {
        self.out.sink.push(if value { tag::TRUE } else { tag::FALSE })
    }

    fn serialize_i64(self, number: i64) -> Result<(), Fault> {
        match u64::try_from(number) {
            Ok(number) => self.serialize_u64(number),
            Err(_) => {
                self.out.sink.push(tag::NEGATIVE)?;
                self.out.sink.varint(!number as u64)
            }
        }
    }

    fn serialize_u64(self, number: u64) -> Result<(), Fault> {
        if number < u64::from(u8::MAX - tag::SMALL) {
            return self.out.sink.push(tag::SMALL + number as u8);
        }
        self.out.sink.push(tag::UNSIGNED)?;
        self.out.sink.varint(number)
    }

    fn serialize_i128(self, number: i128) -> Result<(), Fault> {
        if let Ok(number) = i64::try_from(number) {
            return self.serialize_i64(number);
        }
        match u128::try_from(number) {
            Ok(number) => self.serialize_u128(number),
            Err(_) => self.tagged(tag::NEGATIVE_WIDE, &number.to_le_bytes()),
        }
    }

    fn serialize_u128(self, number: u128) -> Result<(), Fault> {
        match u64::try_from(number) {
            Ok(number) => self.serialize_u64(number),
            Err(_) => self.tagged(tag::UNSIGNED_WIDE, &number.to_le_bytes()),
        }
    }

    fn serialize_f32(self, number: f32) -> Result<(), Fault> {
        self.tagged(tag::F32, &number.to_le_bytes())
    }

    fn serialize_f64(self, number: f64) -> Result<(), Fault> {
        self.tagged(tag::F64, &number.to_le_bytes())
    }

    fn serialize_char(self, character: char) -> Result<(), Fault> {
        self.out.sink.push(tag::CHAR)?;
        self.out.sink.character(character)
    }

    fn serialize_str(self, text: &str) -> Result<(), Fault> {
        self.out.sink.push(tag::STR)?;
        self.out.sink.counted(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Fault> {
        self.out.sink.push(tag::BYTES)?;
        self.out.sink.counted(bytes)
    }

    fn serialize_none(self) -> Result<(), Fault> {
        self.out.sink.push(tag::NONE)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        self.out.sink.push(tag::SOME)?;
        Self::part(self.out, self.depth + 1, value)
    }

    fn serialize_unit(self) -> Result<(), Fault> {
        self.out.sink.push(tag::UNIT)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Fault> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fault> {
        Self::part(self.out, self.depth + 1, value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.variant(variant)?;
        Self::part(self.out, self.depth + 1, value)?;
        self.out.sink.push(tag::END)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Seq<'w, 'a, S>, Fault> {
        self.seq(1)
    }

    fn serialize_tuple(self, _: usize) -> Result<Seq<'w, 'a, S>, Fault> {
        self.seq(1)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Seq<'w, 'a, S>, Fault> {
        self.seq(1)
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Seq<'w, 'a, S>, Fault> {
        self.variant(variant)?;
        self.seq(2)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map<'w, 'a, S>, Fault> {
        self.out.sink.push(tag::MAP)?;
        Ok(Map { out: self.out, depth: self.depth + 1 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Struct<'w, 'a, S>, Fault> {
        self.fields(1)
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Struct<'w, 'a, S>, Fault> {
        self.variant(variant)?;
        self.fields(2)
    }
}
