//! The compact format: the parts of a value one behind the other, without kinds and names. It is read right only by a
//! Deserialize that asks for exactly these parts, which the writer checks: see [`shape`](super::shape).

mod reader;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;
