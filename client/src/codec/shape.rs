//! What a type's Deserialize asks for, as far as it is known: learned from values, and never forgotten.
//!
//! The compact format has no names and no kinds: it is read right if Deserialize asks for exactly what Serialize wrote, in its
//! order. serde does not say beforehand what a type asks for, so the first values of a type are decoded where they are
//! encoded, and what they are asked for is noted ([`learn`]). From then on each write is compared with that
//! ([`compact`](super::compact)).
//!
//! It is a graph of nodes, one for each place in a type at which Deserialize asks for something; nodes are filled in once and
//! live for ever, so that they are read without locks. There are at most [`MOST_NODES`].

mod known;
pub(super) mod learn;
pub(super) mod notes;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) use known::{Known, known};

/// More nodes than programs have places in their types; beyond them everything describes itself.
const MOST_NODES: usize = 1 << 16;
static NODES: AtomicUsize = AtomicUsize::new(0);

/// What is asked for at one place.
#[derive(Debug)]
pub(super) struct Node {
    ask: OnceLock<Ask>,
    /// It was asked for different things, or something that the compact format does not have.
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
pub(super) enum Ask {
    Leaf(Leaf),
    /// Anything, or something to be skipped: such a part describes itself.
    Any,
    Option(&'static Node),
    Seq(&'static Node),
    Map(&'static Node, &'static Node),
    Tuple(Box<[&'static Node]>),
    Struct(Fields),
    Enum(Variants),
    /// The same as a node around it: the type is recursive.
    Same(&'static Node),
}

/// What is asked for of a struct, or of a struct variant.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) names: &'static [&'static str],
    pub(super) nodes: Box<[&'static Node]>,
    /// How many fields are asked for when they come without names: there are more names if some have aliases.
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
    /// A node of which nothing is known.
    pub(super) fn fresh() -> &'static Self {
        static ONE_TOO_MANY: Node = Node { ask: OnceLock::new(), refused: AtomicBool::new(true) };
        if NODES.fetch_add(1, Ordering::Relaxed) >= MOST_NODES {
            return &ONE_TOO_MANY;
        }
        Box::leak(Box::new(Self { ask: OnceLock::new(), refused: AtomicBool::new(false) }))
    }

    /// What is asked for; `Some(None)`: nothing that the compact format serves.
    #[inline]
    pub(super) fn ask(&self) -> Option<Option<&Ask>> {
        if self.refused.load(Ordering::Relaxed) {
            return Some(None);
        }
        match self.ask.get()? {
            Ask::Same(node) => node.ask(),
            ask => Some(Some(ask)),
        }
    }

    fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

fn fresh_nodes(count: usize) -> Box<[&'static Node]> {
    (0..count).map(|_| Node::fresh()).collect()
}

impl Fields {
    const UNKNOWN: usize = usize::MAX;
    const NEVER: usize = usize::MAX - 1;

    fn new(names: &'static [&'static str]) -> Self {
        Self { names, nodes: fresh_nodes(names.len()), count: AtomicUsize::new(Self::UNKNOWN) }
    }

    /// How many fields are asked for without names; `Some(None)`: they cannot be read without names.
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
    /// Where the variant stands among those that are asked for.
    #[inline]
    pub(super) fn place(&self, index: u32, name: &str) -> Option<usize> {
        let index = index as usize;
        if self.names.get(index).is_some_and(|asked| same(asked, name)) {
            return Some(index);
        }
        self.names.iter().position(|asked| *asked == name)
    }
}

/// Whether two names are the same; most often they are one string.
#[inline]
pub(super) fn same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// A number that is different for types whose values have other parts.
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

/// Of the parts that are no leaves.
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
