//! The shape of a type: what its Deserialize asks for, as far as that is known. It is learned from values, and never forgotten.
//!
//! The compact format has no names and no kinds. It is decoded correctly only if Deserialize asks for exactly what Serialize
//! wrote, in the same order. serde does not tell in advance what a type asks for. So the sender also decodes the first values of
//! a type, and records what Deserialize asks for ([`learn`]). Later writes are compared with that ([`compact`](super::compact)).
//!
//! A shape is a graph of nodes, one for each place in a type where Deserialize asks for something. A node is filled in once and
//! lives forever, so nodes are read without locks. There are at most [`MAX_NODES`].

mod known_type;
pub(super) mod learn;
pub(super) mod recording;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) use known_type::{KnownType, known_type};

/// More nodes than the types of a program need. Beyond them, values are encoded in the self-describing format.
const MAX_NODES: usize = 1 << 16;
static NODES: AtomicUsize = AtomicUsize::new(0);

/// The shape at one place in a type.
#[derive(Debug)]
pub(super) struct Node {
    shape: OnceLock<Shape>,
    /// Deserialize asked for different things here, or for something that the compact format does not have.
    refused: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Leaf {
    Unit = 1,
    Bool,
    I8,
    I16,
    I32,
    I64,
    I128,
    U8,
    U16,
    U32,
    U64,
    U128,
    F32,
    F64,
    Char,
    Str,
    Bytes,
}

#[derive(Debug)]
pub(super) enum Shape {
    Leaf(Leaf),
    /// Anything, or something to skip: such a part is self-describing.
    Any,
    Option(&'static Node),
    Seq(&'static Node),
    Map(&'static Node, &'static Node),
    Tuple(Box<[&'static Node]>),
    Struct(Fields),
    Enum(Variants),
    /// The same as an enclosing node: the type is recursive.
    Same(&'static Node),
}

/// The fields of a struct, or of a struct variant.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) names: &'static [&'static str],
    pub(super) nodes: Box<[&'static Node]>,
    /// How many fields Deserialize asks for if they come without names. With aliases, there are more names than fields.
    count: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Variants {
    pub(super) names: &'static [&'static str],
    pub(super) each: Box<[OnceLock<Content>]>,
}

#[derive(Debug)]
pub(super) enum Content {
    Unit,
    Newtype(&'static Node),
    Tuple(Box<[&'static Node]>),
    Struct(Fields),
}

impl Node {
    /// Creates a node of unknown shape.
    pub(super) fn unknown() -> &'static Self {
        static OVERFLOW: Node = Node { shape: OnceLock::new(), refused: AtomicBool::new(true) };
        if NODES.fetch_add(1, Ordering::Relaxed) >= MAX_NODES {
            return &OVERFLOW;
        }
        Box::leak(Box::new(Self { shape: OnceLock::new(), refused: AtomicBool::new(false) }))
    }

    /// Returns the shape; `Some(None)` if the compact format does not support it.
    #[inline]
    pub(super) fn shape(&self) -> Option<Option<&Shape>> {
        if self.refused.load(Ordering::Relaxed) {
            return Some(None);
        }
        match self.shape.get()? {
            Shape::Same(node) => node.shape(),
            shape => Some(Some(shape)),
        }
    }

    fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

fn unknown_nodes(count: usize) -> Box<[&'static Node]> {
    (0..count).map(|_| Node::unknown()).collect()
}

impl Fields {
    const UNKNOWN: usize = usize::MAX;
    const NEVER: usize = usize::MAX - 1;

    fn new(names: &'static [&'static str]) -> Self {
        Self { names, nodes: unknown_nodes(names.len()), count: AtomicUsize::new(Self::UNKNOWN) }
    }

    /// Returns how many fields Deserialize asks for without names; `Some(None)`: they cannot be read without names.
    #[inline]
    pub(super) fn count(&self) -> Option<Option<usize>> {
        match self.count.load(Ordering::Relaxed) {
            Self::UNKNOWN => None,
            Self::NEVER => Some(None),
            count => Some(Some(count)),
        }
    }

    fn found(&self, count: Option<usize>) {
        let count = count.unwrap_or(Self::NEVER);
        let found = self.count.compare_exchange(Self::UNKNOWN, count, Ordering::Relaxed, Ordering::Relaxed);
        if found.is_err_and(|before| before != count) {
            self.count.store(Self::NEVER, Ordering::Relaxed);
        }
    }
}

impl Variants {
    /// Returns the position of a variant among those that Deserialize knows.
    #[inline]
    pub(super) fn position(&self, index: u32, name: &str) -> Option<usize> {
        let index = index as usize;
        if self.names.get(index).is_some_and(|asked| same(asked, name)) {
            return Some(index);
        }
        self.names.iter().position(|asked| *asked == name)
    }
}

/// Returns whether two names are equal; most often they are the same string in memory.
#[inline]
pub(super) fn same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// A hash of the parts of a type's values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    #[inline]
    pub(super) fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub(super) fn add_names(&mut self, names: &[&str]) {
        self.add(names.len() as u64);
        for name in names {
            self.add_name(name);
        }
    }

    pub(super) fn add_name(&mut self, name: &str) {
        self.add(name.len() as u64);
        name.bytes().for_each(|byte| self.add(byte.into()));
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        ((self.0 >> 32) as u32).to_le_bytes()
    }
}

/// Numbers for a fingerprint, of parts that are not leaves.
pub(super) mod part {
    pub(in crate::codec) const ANY: u64 = 32;
    pub(in crate::codec) const OPTION: u64 = 33;
    pub(in crate::codec) const SEQ: u64 = 34;
    pub(in crate::codec) const MAP: u64 = 35;
    pub(in crate::codec) const TUPLE: u64 = 36;
    pub(in crate::codec) const STRUCT: u64 = 37;
    pub(in crate::codec) const ENUM: u64 = 38;
    pub(in crate::codec) const UNIT_VARIANT: u64 = 39;
    pub(in crate::codec) const NEWTYPE_VARIANT: u64 = 40;
    pub(in crate::codec) const TUPLE_VARIANT: u64 = 41;
    pub(in crate::codec) const STRUCT_VARIANT: u64 = 42;
}
