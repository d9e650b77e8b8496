//! The ids that only the coordinator needs; the others are the core's.

use farpool_core::Id;

/// What a pool or an agent is known by for as long as its process lives, whatever coordinators and connections come and
/// go: 16 random bytes.
pub(crate) type Identity = [u8; 16];

/// A client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    index: u32,
    generation: u32,
}

impl Id for ClientId {
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
