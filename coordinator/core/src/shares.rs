//! What lanes that share have in common: see [`share`](crate::share).

use std::collections::HashMap;

use crate::ids::{AgentId, LaneId, ReachId};
use crate::labels::Labels;

/// The reaches in common, by what their lanes require.
#[derive(Default)]
pub(crate) struct Shares {
    pub(crate) by_require: HashMap<Labels, ReachId>,
    pub(crate) all: HashMap<ReachId, Share>,
}

#[derive(Default)]
pub(crate) struct Share {
    pub(crate) lanes: Vec<LaneId>,
    // Agents that are ready for some of the lanes only, and for how many: those that have them in their own reaches.
    pub(crate) waiting: HashMap<AgentId, usize>,
}
