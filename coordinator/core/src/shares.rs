//! The reaches that lanes share: see [`share`](crate::share).

use std::collections::HashMap;

use crate::ids::{AgentId, LaneId, ReachId};
use crate::labels::Labels;

/// The shared reaches, by the labels that their lanes require.
#[derive(Default)]
pub(crate) struct Shares {
    pub(crate) by_require: HashMap<Labels, ReachId>,
    pub(crate) all: HashMap<ReachId, Share>,
}

#[derive(Default)]
pub(crate) struct Share {
    pub(crate) lanes: Vec<LaneId>,
    // Agents that are ready for only some of the lanes, and for how many. Those lanes have them in their own reaches.
    pub(crate) waiting: HashMap<AgentId, usize>,
}
