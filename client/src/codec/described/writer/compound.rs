//! Writes sequences, maps and structs.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant,
};

use super::DescribedWriter;
use crate::codec::described::tag;
use crate::codec::fault::Fault;
use crate::codec::out::Out;
use crate::codec::sink::Sink;

pub(in crate::codec) struct Seq<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) depth: u32,
    /// Number of ENDs after the elements: one more if it is the content of a variant.
    pub(super) ends: u8,
}

pub(in crate::codec) struct Map<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) depth: u32,
}

pub(in crate::codec) struct Struct<'w, 'a, S> {
    pub(super) out: &'w mut Out<'a, S>,
    pub(super) depth: u32,
    /// The position of its tag.
    pub(super) start: usize,
    pub(super) ends: u8,
}

fn end<S: Sink>(out: &mut Out<'_, S>, ends: u8) -> Result<(), Fault> {
    (0..ends).try_for_each(|_| out.sink.push(tag::END))
}

macro_rules! sequences {
    ($($trait:ident $method:ident),*) => {$(
        impl<S: Sink> $trait for Seq<'_, '_, S> {
            type Ok = ();
            type Error = Fault;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                DescribedWriter::part(self.out, self.depth, value)
            }

            fn end(self) -> Result<(), Fault> {
                end(self.out, self.ends)
            }
        }
    )*};
}

sequences!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

impl<S: Sink> SerializeMap for Map<'_, '_, S> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        DescribedWriter::part(self.out, self.depth, key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        DescribedWriter::part(self.out, self.depth, value)
    }

    fn end(self) -> Result<(), Fault> {
        end(self.out, 1)
    }
}

macro_rules! structs {
    ($($trait:ident),*) => {$(
        impl<S: Sink> $trait for Struct<'_, '_, S> {
            type Ok = ();
            type Error = Fault;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Fault> {
                self.out.sink.push(tag::STR)?;
                self.out.sink.counted(key.as_bytes())?;
                DescribedWriter::part(self.out, self.depth, value).map_err(|fault| fault.in_field(key))
            }

            fn skip_field(&mut self, _: &'static str) -> Result<(), Fault> {
                self.out.sink.set(self.start, tag::STRUCT);
                Ok(())
            }

            fn end(self) -> Result<(), Fault> {
                end(self.out, self.ends)
            }
        }
    )*};
}

structs!(SerializeStruct, SerializeStructVariant);
