//! Ids that only the coordinator needs; the others are the core's.

use farpool_core::Id;

use crate::Principal;

/// Identifies a pool or an agent as long as its process lives, across coordinators and connections: a part of its
/// secret's hash.
pub(crate) type Identity = [u8; 16];

/// Identifies a pool across lost connections and coordinators. Only its owner, who has its secret, can open it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    pub(crate) owner: Principal,
    pub(crate) id: Identity,
}

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

/// An agent's id as operators see and enter it.
pub(crate) fn id_as_text(id: Option<Identity>) -> String {
    let Some(id) = id else { return "local".to_owned() };
    let mut text = String::with_capacity(36);
    for (at, byte) in id.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
