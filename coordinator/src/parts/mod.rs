//! The state, divided into parts. Each part keeps its fields private and calls no step.

pub(crate) mod agents;
pub(crate) mod clients;
pub(crate) mod former;
pub(crate) mod jobs;
pub(crate) mod labels;
pub(crate) mod lends;
pub(crate) mod mail;
pub(crate) mod places;
pub(crate) mod pools;
pub(crate) mod settlement;
pub(crate) mod shared;

use agents::Agents;
use clients::Clients;
use former::Deadlines;
use jobs::Jobs;
use labels::LabelBook;
use lends::Lends;
use pools::Pools;
use settlement::Settlement;

/// The state of all clients, agents, pools and jobs. The core knows the state of their items.
///
/// It has no methods, and keeps no invariants between its parts: the steps do that.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) clients: Clients,
    pub(crate) agents: Agents,
    pub(crate) pools: Pools,
    pub(crate) jobs: Jobs,
    pub(crate) labels: LabelBook,
    pub(crate) lends: Lends,
    pub(crate) settlement: Settlement,
    pub(crate) deadlines: Deadlines,
    pub(crate) names: Names,
}

/// The numbers of pools and jobs for operators. Each is unique, and none is used again.
#[derive(Default)]
pub(crate) struct Names {
    last: u64,
}

impl Names {
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether this number was used.
    pub(crate) fn was_given(&self, name: u64) -> bool {
        (1..=self.last).contains(&name)
    }
}
