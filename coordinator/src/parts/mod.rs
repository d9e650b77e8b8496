//! Who owns what. Each part keeps its state to itself and calls no step.

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

use agents::Agents;
use clients::Clients;
use former::Deadlines;
use jobs::Jobs;
use labels::LabelBook;
use lends::Lends;
use pools::Pools;
use settlement::Settlement;

/// All that is known of clients, agents, pools and jobs; what is to be done with their items, the core knows.
///
/// It has no methods, and nothing that must hold between its parts is kept here: the steps see to that.
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

/// What operators call pools and jobs: each has a number of its own, and none is used again.
#[derive(Default)]
pub(crate) struct Names {
    last: u64,
}

impl Names {
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Whether it has been the name of something.
    pub(crate) fn was_given(&self, name: u64) -> bool {
        (1..=self.last).contains(&name)
    }
}
