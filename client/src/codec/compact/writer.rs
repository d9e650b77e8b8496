mod compound;

use serde::{Serialize, Serializer};

use compound::{Map, Seq, Struct, Tuple};

use crate::codec::described::DescribedWriter;
use crate::codec::fault::Fault;
use crate::codec::out::{Out, WriteLeaf};
use crate::codec::shape::{Content, Fields, Leaf, Node, Shape, part};
use crate::codec::sink::Sink;

/// Writes one part of this shape, `depth` levels deep.
pub(in crate::codec) struct CompactWriter<'w, 'a, S> {
    out: &'w mut Out<'a, S>,
    shape: &'static Shape,
    depth: u32,
}

impl<'w, 'a, S: Sink> CompactWriter<'w, 'a, S> {
    /// Writes a part at this node.
    #[inline]
    pub(in crate::codec) fn part<T: Serialize + ?Sized>(
        out: &mut Out<'a, S>,
        node: &'static Node,
        depth: u32,
        value: &T,
    ) -> Result<(), Fault> {
        match node.shape() {
            Some(Some(Shape::Any)) => {
                out.add_to_fingerprint(part::ANY);
                DescribedWriter::new(out, depth).write(value)
            }
            Some(Some(shape)) => out.descend(depth, |out| value.serialize(CompactWriter { out, shape, depth })),
            Some(None) => out.fail(Fault::Differs),
            None => out.fail(Fault::Unknown),
        }
    }

    #[inline]
    fn leaf(&mut self, leaf: Leaf) -> Result<(), Fault> {
        match self.shape {
            Shape::Leaf(asked) if *asked == leaf => {
                self.out.add_to_fingerprint(leaf.part());
                Ok(())
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    fn option(&mut self) -> Result<&'static Node, Fault> {
        match self.shape {
            Shape::Option(node) => {
                self.out.add_to_fingerprint(part::OPTION);
                Ok(node)
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    fn tuple_of(self, nodes: &'static [&'static Node], length: usize) -> Result<Tuple<'w, 'a, S>, Fault> {
        if nodes.len() != length {
            return self.out.fail(Fault::Differs);
        }
        self.out.add_to_fingerprint(length as u64);
        Ok(Tuple { out: self.out, nodes, index: 0, depth: self.depth + 1 })
    }

    fn struct_of(self, fields: &'static Fields) -> Result<Struct<'w, 'a, S>, Fault> {
        match fields.count() {
            Some(Some(count)) => {
                if let Some(fingerprint) = &mut self.out.fingerprint {
                    fingerprint.add_names(fields.names);
                }
                Ok(Struct { out: self.out, fields, at: 0, left: count, depth: self.depth + 1 })
            }
            Some(None) => self.out.fail(Fault::Differs),
            None => self.out.fail(Fault::Unknown),
        }
    }

    /// Writes the position of the variant; returns the shape of its content.
    fn variant(&mut self, index: u32, name: &str) -> Result<&'static Content, Fault> {
        let Shape::Enum(variants) = self.shape else { return self.out.fail(Fault::Differs) };
        let Some(position) = variants.position(index, name) else { return self.out.fail(Fault::Differs) };
        let Some(content) = variants.each[position].get() else { return self.out.fail(Fault::Unknown) };
        if let Some(fingerprint) = &mut self.out.fingerprint {
            fingerprint.add(part::ENUM);
            fingerprint.add_name(name);
        }
        self.out.sink.varint(position as u64)?;
        Ok(content)
    }
}

macro_rules! numbers {
    ($($method:ident($number:ty) $leaf:ident $write:ident,)*) => {$(
        #[inline]
        fn $method(mut self, number: $number) -> Result<(), Fault> {
            self.leaf(Leaf::$leaf)?;
            self.out.sink.$write(number.into())
        }
    )*};
}

macro_rules! memory {
    ($($method:ident($number:ty) $leaf:ident,)*) => {$(
        #[inline]
        fn $method(mut self, number: $number) -> Result<(), Fault> {
            self.leaf(Leaf::$leaf)?;
            self.out.sink.extend(&number.to_le_bytes())
        }
    )*};
}

impl<'w, 'a, S: Sink> Serializer for CompactWriter<'w, 'a, S> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Seq<'w, 'a, S>;
    type SerializeTuple = Tuple<'w, 'a, S>;
    type SerializeTupleStruct = Tuple<'w, 'a, S>;
    type SerializeTupleVariant = Tuple<'w, 'a, S>;
    type SerializeMap = Map<'w, 'a, S>;
    type SerializeStruct = Struct<'w, 'a, S>;
    type SerializeStructVariant = Struct<'w, 'a, S>;

    numbers! {
        serialize_bool(bool) Bool push,
        serialize_u8(u8) U8 push,
        serialize_u16(u16) U16 unsigned,
        serialize_u32(u32) U32 unsigned,
        serialize_u64(u64) U64 unsigned,
        serialize_i16(i16) I16 signed,
        serialize_i32(i32) I32 signed,
        serialize_i64(i64) I64 signed,
        serialize_char(char) Char character,
    }

    memory! {
        serialize_i8(i8) I8,
        serialize_i128(i128) I128,
        serialize_u128(u128) U128,
        serialize_f32(f32) F32,
        serialize_f64(f64) F64,
    }

    #[inline]
    fn serialize_str(mut self, text: &str) -> Result<(), Fault> {
        self.leaf(Leaf::Str)?;
        self.out.sink.counted(text.as_bytes())
    }

    #[inline]
    fn serialize_bytes(mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.leaf(Leaf::Bytes)?;
        self.out.sink.counted(bytes)
    }

    #[inline]
    fn serialize_none(mut self) -> Result<(), Fault> {
        self.option()?;
        self.out.sink.push(0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Fault> {
        let node = self.option()?;
        self.out.sink.push(1)?;
        Self::part(self.out, node, self.depth + 1, value)
    }

    #[inline]
    fn serialize_unit(mut self) -> Result<(), Fault> {
        self.leaf(Leaf::Unit)
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(mut self, _: &'static str, index: u32, variant: &'static str) -> Result<(), Fault> {
        match self.variant(index, variant)? {
            Content::Unit => {
                self.out.add_to_fingerprint(part::UNIT_VARIANT);
                Ok(())
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fault> {
        let Self { out, shape, depth } = self;
        out.descend(depth + 1, |out| value.serialize(CompactWriter { out, shape, depth: depth + 1 }))
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        match self.variant(index, variant)? {
            Content::Newtype(node) => {
                self.out.add_to_fingerprint(part::NEWTYPE_VARIANT);
                Self::part(self.out, node, self.depth + 1, value)
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Seq<'w, 'a, S>, Fault> {
        match (self.shape, length) {
            (Shape::Seq(node), Some(length)) => {
                self.out.add_to_fingerprint(part::SEQ);
                self.out.sink.varint(length as u64)?;
                let start = self.out.sink.position();
                Ok(Seq { out: self.out, node, length, left: length, start, depth: self.depth + 1 })
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    #[inline]
    fn serialize_tuple(self, length: usize) -> Result<Tuple<'w, 'a, S>, Fault> {
        match self.shape {
            Shape::Tuple(nodes) => {
                self.out.add_to_fingerprint(part::TUPLE);
                self.tuple_of(nodes, length)
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Tuple<'w, 'a, S>, Fault> {
        self.serialize_tuple(length)
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Tuple<'w, 'a, S>, Fault> {
        match self.variant(index, variant)? {
            Content::Tuple(nodes) => {
                self.out.add_to_fingerprint(part::TUPLE_VARIANT);
                self.tuple_of(nodes, length)
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Map<'w, 'a, S>, Fault> {
        match (self.shape, length) {
            (Shape::Map(key, value), Some(length)) => {
                self.out.add_to_fingerprint(part::MAP);
                self.out.sink.varint(length as u64)?;
                let start = self.out.sink.position();
                Ok(Map { out: self.out, key, value, length, left: length, start, depth: self.depth + 1 })
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Struct<'w, 'a, S>, Fault> {
        match self.shape {
            Shape::Struct(fields) => {
                self.out.add_to_fingerprint(part::STRUCT);
                self.struct_of(fields)
            }
            _ => self.out.fail(Fault::Differs),
        }
    }

    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Struct<'w, 'a, S>, Fault> {
        match self.variant(index, variant)? {
            Content::Struct(fields) => {
                self.out.add_to_fingerprint(part::STRUCT_VARIANT);
                self.struct_of(fields)
            }
            _ => self.out.fail(Fault::Differs),
        }
    }
}
