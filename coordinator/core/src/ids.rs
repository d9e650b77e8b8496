//! Ids: an index in a table and a generation.
//!
//! The index makes a look-up one array access. The generation makes an id unique: a later value at the same index has
//! another one, so a late message about its predecessor finds nothing.

use std::fmt;

/// What all ids have in common. [`Slab`](crate::Slab) and [`Table`](crate::Table) are indexed by them.
pub trait Id: Copy + Eq {
    /// Makes the id for this index and generation.
    fn new(index: u32, generation: u32) -> Self;
    /// The index in the table.
    fn index(self) -> u32;
    /// How often the index had been used when this id was given out; from 1.
    fn generation(self) -> u32;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $vis:vis $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis struct $name {
            index: u32,
            generation: u32,
        }

        impl Id for $name {
            fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }
            fn index(self) -> u32 {
                self.index
            }
            fn generation(self) -> u32 {
                self.generation
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}.{})", stringify!($name), self.index, self.generation)
            }
        }
    )*};
}

macro_rules! numbers {
    ($($name:ident)*) => {$(
        impl $name {
            /// The id as one number, for messages. Never 0 for an id that a slab gave out.
            pub fn to_bits(self) -> u64 {
                u64::from(self.generation) << 32 | u64::from(self.index)
            }

            /// The id for a number from [`to_bits`](Self::to_bits). Any number is an id, known or not.
            pub fn from_bits(bits: u64) -> Self {
                Self { index: bits as u32, generation: (bits >> 32) as u32 }
            }
        }
    )*};
}

numbers! { AgentId PoolId JobId ChunkId }

ids! {
    /// An agent: the daemon of a host that runs chunks. Given out by the caller.
    pub AgentId
    /// A pool, opened by a client; it owns jobs. Given out by the caller.
    pub PoolId
    /// One map, imap or apply call. Given out by the caller.
    pub JobId
    /// One assignment of items to an agent. Given out by [`Core`](crate::Core), a new one for each assignment.
    pub ChunkId
    /// Jobs of a pool that may run on the same agents. Given out by the core, like those below.
    pub(crate) LaneId
    /// A set of lanes and agents in which each lane may run on each agent.
    pub(crate) ReachId
    /// A pool at an agent.
    pub(crate) PlaceId
}
