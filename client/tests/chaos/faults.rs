//! The kinds of faults, and a schedule drawn from a seed.

use std::time::Duration;

use farpool_testkit::random::Random;

/// A fault. Numbers in `which` choose among the processes of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    WorkerKilled {
        which: u64,
    },
    WorkerStopped {
        which: u64,
        pause: Duration,
    },
    ForkServerKilled {
        which: u64,
    },
    AgentKilled {
        agent: usize,
        pause: Duration,
    },
    AgentStopped {
        agent: usize,
        pause: Duration,
    },
    /// SIGTERM: it drains, and another one starts.
    AgentLeaves {
        agent: usize,
    },
    /// `torn`: there is garbage after the end of its journal when it restarts.
    CoordinatorKilled {
        pause: Duration,
        torn: Option<u64>,
    },
    CoordinatorStopped {
        pause: Duration,
    },
    CableCut {
        cable: usize,
    },
    CableUnplugged {
        cable: usize,
        pause: Duration,
    },
    CableSilent {
        cable: usize,
        pause: Duration,
    },
    CableHalfOpen {
        cable: usize,
        coordinator_learns: bool,
    },
    LinkDown {
        link: usize,
        pause: Duration,
    },
    /// The disk of the coordinator's journal.
    DiskFull {
        pause: Duration,
    },
    /// A separate client is killed while its pool has work, or while it detaches a job.
    VisitorKilled {
        pause: Duration,
    },
}

/// How frequent each kind is.
const WEIGHTS: [(Kind, u64); 15] = [
    (Kind::WorkerKilled, 30),
    (Kind::WorkerStopped, 8),
    (Kind::ForkServerKilled, 4),
    (Kind::AgentKilled, 6),
    (Kind::AgentStopped, 8),
    (Kind::AgentLeaves, 2),
    (Kind::CoordinatorKilled, 8),
    (Kind::CoordinatorStopped, 4),
    (Kind::CableCut, 10),
    (Kind::CableUnplugged, 5),
    (Kind::CableSilent, 5),
    (Kind::CableHalfOpen, 6),
    (Kind::LinkDown, 6),
    (Kind::DiskFull, 4),
    (Kind::VisitorKilled, 5),
];

#[derive(Clone, Copy)]
enum Kind {
    WorkerKilled,
    WorkerStopped,
    ForkServerKilled,
    AgentKilled,
    AgentStopped,
    AgentLeaves,
    CoordinatorKilled,
    CoordinatorStopped,
    CableCut,
    CableUnplugged,
    CableSilent,
    CableHalfOpen,
    LinkDown,
    DiskFull,
    VisitorKilled,
}

/// An endless sequence of faults.
pub(crate) struct Schedule {
    random: Random,
    agents: u64,
    cables: u64,
    links: u64,
}

impl Schedule {
    /// Creates the schedule for a cluster with this many of each.
    pub(crate) fn new(seed: u64, agents: usize, cables: usize, links: usize) -> Self {
        Self { random: Random::new(seed), agents: agents as u64, cables: cables as u64, links: links as u64 }
    }

    /// Returns the next fault, and the pause before it.
    pub(crate) fn next(&mut self) -> (Duration, Fault) {
        // Often several at once, sometimes none for long.
        let pause = match self.random.below(4) {
            0 => self.random.millis(0..30),
            1 => self.random.millis(500..1200),
            _ => self.random.millis(30..500),
        };
        (pause, self.fault())
    }

    fn fault(&mut self) -> Fault {
        let all = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(all);
        let chosen = WEIGHTS.iter().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        let kind = chosen.map_or(Kind::WorkerKilled, |(kind, _)| *kind);
        let which = self.random.next();
        let agent = self.random.below(self.agents) as usize;
        let cable = self.random.below(self.cables) as usize;
        let link = self.random.below(self.links) as usize;
        // A peer counts as lost after 2 s of silence. Some pauses are longer, most are shorter.
        let pause = match self.random.below(5) {
            0 => self.random.millis(2000..5000),
            1 => self.random.millis(0..30),
            _ => self.random.millis(30..1500),
        };
        match kind {
            Kind::WorkerKilled => Fault::WorkerKilled { which },
            Kind::WorkerStopped => Fault::WorkerStopped { which, pause },
            Kind::ForkServerKilled => Fault::ForkServerKilled { which },
            Kind::AgentKilled => Fault::AgentKilled { agent, pause },
            Kind::AgentStopped => Fault::AgentStopped { agent, pause },
            Kind::AgentLeaves => Fault::AgentLeaves { agent },
            Kind::CoordinatorKilled => {
                let torn = which.is_multiple_of(2).then_some(which);
                Fault::CoordinatorKilled { pause, torn }
            }
            Kind::CoordinatorStopped => Fault::CoordinatorStopped { pause },
            Kind::CableCut => Fault::CableCut { cable },
            Kind::CableUnplugged => Fault::CableUnplugged { cable, pause },
            Kind::CableSilent => Fault::CableSilent { cable, pause },
            Kind::CableHalfOpen => Fault::CableHalfOpen { cable, coordinator_learns: which.is_multiple_of(2) },
            Kind::LinkDown if self.links > 0 => Fault::LinkDown { link, pause },
            Kind::LinkDown => Fault::CableSilent { cable, pause },
            Kind::DiskFull => Fault::DiskFull { pause },
            Kind::VisitorKilled => Fault::VisitorKilled { pause },
        }
    }
}
