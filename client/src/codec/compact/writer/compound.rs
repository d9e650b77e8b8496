//! Writes sequences, maps, tuples and structs.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant,
};

use super::CompactWriter;
use crate::codec::fault::Fault;
use crate::codec::out::Out;
use crate::codec::shape::{Fields, Node, same};
use crate::codec::sink::Sink;

pub(in crate::codec) struct Seq<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) node: &'static Node,
    pub(super) length: usize,
    pub(super) left: usize,
    pub(super) start: usize,
    pub(super) depth: u32,
}

pub(in crate::codec) struct Map<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) key: &'static Node,
    pub(super) value: &'static Node,
    pub(super) length: usize,
    pub(super) left: usize,
    pub(super) start: usize,
    pub(super) depth: u32,
}

pub(in crate::codec) struct Tuple<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) nodes: &'static [&'static Node],
    pub(super) index: usize,
    pub(super) depth: u32,
}

pub(in crate::codec) struct Struct<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) fields: &'static Fields,
    /// The position after the name of the last field.
    pub(super) at: usize,
    /// Number of fields that are still missing.
    pub(super) left: usize,
    pub(super) depth: u32,
}

/// Checks the number of elements. A reader rejects a count above the number of bytes, so elements of zero bytes do not fit this
/// format.
fn end<S: Sink>(out: &mut Out<'_, S>, length: usize, left: usize, start: usize) -> Result<(), Fault> {
    if left == 0 && out.sink.position() - start >= length { Ok(()) } else { out.fail(Fault::Differs) }
}

impl<S: Sink> SerializeSeq for Seq<'_, '_, S> {
    type Ok = ();
    type Error = Fault;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        let Some(left) = self.left.checked_sub(1) else { return self.out.fail(Fault::Differs) };
        self.left = left;
        CompactWriter::part(self.out, self.node, self.depth, value)
    }

    #[inline]
    fn end(self) -> Result<(), Fault> {
        end(self.out, self.length, self.left, self.start)
    }
}

impl<S: Sink> SerializeMap for Map<'_, '_, S> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        let Some(left) = self.left.checked_sub(1) else { return self.out.fail(Fault::Differs) };
        self.left = left;
        CompactWriter::part(self.out, self.key, self.depth, key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        CompactWriter::part(self.out, self.value, self.depth, value)
    }

    fn end(self) -> Result<(), Fault> {
        end(self.out, self.length, self.left, self.start)
    }
}

macro_rules! tuples {
    ($($trait:ident $method:ident),*) => {$(
        impl<S: Sink> $trait for Tuple<'_, '_, S> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                let Some(node) = self.nodes.get(self.index) else { return self.out.fail(Fault::Differs) };
                self.index += 1;
                CompactWriter::part(self.out, node, self.depth, value)
            }

            #[inline]
            fn end(self) -> Result<(), Fault> {
                if self.index == self.nodes.len() { Ok(()) } else { self.out.fail(Fault::Differs) }
            }
        }
    )*};
}

tuples!(SerializeTuple serialize_element, SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! structs {
    ($($trait:ident),*) => {$(
        impl<S: Sink> $trait for Struct<'_, '_, S> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fault> {
                let names = self.fields.names;
                // Names in between are aliases; if not, the count is wrong in the end.
                while self.at < names.len() && !same(names[self.at], key) {
                    self.at += 1;
                }
                let (Some(node), Some(left)) = (self.fields.nodes.get(self.at), self.left.checked_sub(1)) else {
                    return self.out.fail(Fault::Differs);
                };
                self.at += 1;
                self.left = left;
                CompactWriter::part(self.out, node, self.depth, value).map_err(|fault| fault.in_field(key))
            }

            fn skip_field(&mut self, _: &'static str) -> Result<(), Fault> {
                self.out.fail(Fault::Differs)
            }

            #[inline]
            fn end(self) -> Result<(), Fault> {
                if self.left == 0 { Ok(()) } else { self.out.fail(Fault::Differs) }
            }
        }
    )*};
}

structs!(SerializeStruct, SerializeStructVariant);
