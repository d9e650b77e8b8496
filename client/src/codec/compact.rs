//! The compact format: the parts of a value one after another, without kinds and names. It is decoded correctly only if
//! Deserialize asks for exactly these parts, which the writer checks: see [`shape`](super::shape).

mod reader;
mod writer;

pub(super) use reader::CompactReader;
pub(super) use writer::CompactWriter;
