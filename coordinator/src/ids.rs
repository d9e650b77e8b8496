//! The ids that only the coordinator needs; the others are the core's.

use farpool_core::Id;

use crate::Principal;

/// What a pool or an agent is known by for as long as its process lives, whatever coordinators and connections come and
/// go: a part of its secret's hash.
pub(crate) type Identity = [u8; 16];

/// What a pool is known by over lost connections and coordinators: only its owner, who has its secret, can open it again.
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

/// An agent's id as operators see and give it.
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
