//! The self-describing format: each part begins with a tag for its kind, and structs and enums contain the names of their fields
//! and variants.
//!
//! It covers serde's data model, and decodes like serde's other self-describing formats, JSON above all: a newtype is what it
//! contains, a variant is its name or a map from its name to its content, a struct is a map. Unlike JSON it distinguishes
//! `Some(())`, `Some(None)`, `None` and `()`, keeps NaN and integers of 128 bits, and allows keys of any type.

mod reader;
mod writer;

pub(super) use reader::DescribedReader;
pub(super) use writer::DescribedWriter;

/// The first byte of each part.
mod tag {
    pub(super) const END: u8 = 0;
    pub(super) const UNIT: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const TRUE: u8 = 3;
    /// A varint.
    pub(super) const UNSIGNED: u8 = 4;
    /// The complement of a negative number, as a varint.
    pub(super) const NEGATIVE: u8 = 5;
    /// More than 64 bits, in 16 bytes.
    pub(super) const UNSIGNED_WIDE: u8 = 6;
    pub(super) const NEGATIVE_WIDE: u8 = 7;
    pub(super) const F32: u8 = 8;
    pub(super) const F64: u8 = 9;
    pub(super) const CHAR: u8 = 10;
    pub(super) const STR: u8 = 11;
    pub(super) const BYTES: u8 = 12;
    pub(super) const NONE: u8 = 13;
    /// What it contains follows.
    pub(super) const SOME: u8 = 14;
    /// Elements, and an END.
    pub(super) const SEQ: u8 = 15;
    /// Keys and values in turn, and an END.
    pub(super) const MAP: u8 = 16;
    /// Like a map, whose keys are all the fields of a type.
    pub(super) const WHOLE_STRUCT: u8 = 17;
    /// Like a map, whose keys are fields of a type; some were left out.
    pub(super) const STRUCT: u8 = 18;
    /// From here on the tag itself is a number: 0 for this one.
    pub(super) const SMALL: u8 = 64;
}
