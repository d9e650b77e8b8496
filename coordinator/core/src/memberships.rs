//! The reaches that an agent is in.

use crate::ids::ReachId;

/// The reaches that an agent is in, and its number in each. Those where it is marked as outdated come first.
#[derive(Default)]
pub(crate) struct Memberships {
    pub(crate) all: Vec<(ReachId, u32)>,
    pub(crate) outdated: usize,
}

impl Memberships {
    /// Whether the agent is in the reach.
    pub(crate) fn contain(&self, id: ReachId) -> bool {
        self.position(id).is_some()
    }

    /// Returns the position of the reach in the list.
    pub(crate) fn position(&self, id: ReachId) -> Option<usize> {
        self.all.iter().position(|&(reach, _)| reach == id)
    }
}
