//! The workloads: their measures, the units, and farpool's goals.

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) condition: Condition,
    /// In the order in which sides report them.
    pub(crate) measures: &'static [Measure],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// One process per side does all runs, after a warm-up.
    Warm,
    /// Like `Warm`, while a process of the lowest priority keeps each core awake: waking an idle core costs more than a call.
    Awake,
    /// A new process for each run, whose start is measured.
    Fresh,
}

pub(crate) struct Measure {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// The goal on one machine.
    pub(crate) goal: Goal,
    /// The goal on a cluster.
    pub(crate) cluster_goal: Goal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    None,
    AtLeast(f64),
    AtMost(f64),
    AtMostTimesTheLimit(f64),
}

impl Workload {
    /// Returns whether it is also run on a cluster.
    pub(crate) fn is_for_clusters(&self) -> bool {
        !matches!(self.name, "W8" | "W9")
    }

    pub(crate) fn named(name: &str) -> Option<&'static Workload> {
        WORKLOADS.iter().find(|workload| workload.name.eq_ignore_ascii_case(name))
    }
}

const fn rate(what: &'static str, unit: &'static str, goal: Goal) -> Measure {
    Measure { what, unit, better: Better::More, goal, cluster_goal: Goal::None }
}

const fn cost(what: &'static str, unit: &'static str, goal: Goal) -> Measure {
    Measure { what, unit, better: Better::Less, goal, cluster_goal: Goal::None }
}

impl Measure {
    const fn on_a_cluster(mut self, goal: Goal) -> Measure {
        self.cluster_goal = goal;
        self
    }
}

/// The limit is a round trip over a socketpair between two cores; on a cluster, two round trips of a bare gRPC stream and one
/// over a socketpair. The kernel tends to put processes that wake each other on one core, where no core has to be woken. So the
/// third measure compares the same figure with the limit on one core. The last two are the parts of a cluster's limit.
const ROUND_TRIP: &[Measure] = &[
    cost("p50", "us", Goal::AtMostTimesTheLimit(2.0)).on_a_cluster(Goal::AtMostTimesTheLimit(1.6)),
    cost("p99", "us", Goal::None),
    cost("p50, the limit on one core", "us", Goal::None),
    cost("p99 / p50", "times", Goal::None).on_a_cluster(Goal::AtMost(4.0)),
    cost("one round trip of a bare stream", "us", Goal::None),
    cost("one round trip over a socketpair", "us", Goal::None),
];

/// All workloads. The numbers of items and workers are in the sides' code: `pool.rs`, `limit.rs` and `multiprocessing_pool.py`.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "W1",
        what: "20,000 x identity, one item a chunk, 2 workers",
        condition: Condition::Warm,
        measures: &[rate("", "tasks/s", Goal::AtLeast(500e3)).on_a_cluster(Goal::AtLeast(200e3))],
    },
    Workload {
        name: "W2",
        what: "map of 1,000,000 x identity, own chunks, 2 workers",
        condition: Condition::Warm,
        measures: &[rate("", "tasks/s", Goal::AtLeast(10e6)).on_a_cluster(Goal::AtLeast(5e6))],
    },
    Workload {
        name: "W2c",
        what: "the same in chunks of 125,000",
        condition: Condition::Warm,
        measures: &[rate("", "tasks/s", Goal::None)],
    },
    Workload {
        name: "W3",
        what: "2,000 x apply(identity), quiet machine",
        condition: Condition::Warm,
        measures: ROUND_TRIP,
    },
    Workload { name: "W3awake", what: "the same, cores kept awake", condition: Condition::Awake, measures: ROUND_TRIP },
    Workload {
        name: "W4",
        what: "factorials of 1 to 100, 4 workers",
        condition: Condition::Warm,
        measures: &[
            cost("start to finish", "ms", Goal::AtMost(5.0)),
            cost("of that, start to results", "ms", Goal::None),
            cost("map in a warm pool", "ms", Goal::None),
        ],
    },
    Workload {
        name: "W5a",
        what: "200 items of 1 MiB in, 2 workers",
        condition: Condition::Warm,
        measures: &[rate("", "MiB/s", Goal::AtLeast(2000.0)).on_a_cluster(Goal::AtLeast(500.0))],
    },
    Workload {
        name: "W5r",
        what: "200 results of 1 MiB out, 2 workers",
        condition: Condition::Warm,
        measures: &[rate("", "MiB/s", Goal::AtLeast(2000.0)).on_a_cluster(Goal::AtLeast(500.0))],
    },
    Workload {
        name: "W6",
        what: "400 Pareto sleeps as drawn, 8 workers",
        condition: Condition::Warm,
        measures: &[cost("", "ms", Goal::AtMost(318.0)).on_a_cluster(Goal::AtMost(330.0))],
    },
    Workload {
        name: "W6s",
        what: "the same, longest last",
        condition: Condition::Warm,
        measures: &[cost("", "ms", Goal::AtMost(395.0)).on_a_cluster(Goal::AtMost(410.0))],
    },
    Workload {
        name: "W7",
        what: "item 50 of 100 always kills its worker, 2 workers",
        condition: Condition::Warm,
        measures: &[
            cost("until the caller knows", "ms", Goal::AtMost(500.0)).on_a_cluster(Goal::AtMost(1000.0)),
            cost("other items run twice", "items", Goal::AtMost(0.0)).on_a_cluster(Goal::AtMost(0.0)),
        ],
    },
    Workload {
        name: "W8",
        what: "process start to first result, 2 workers",
        condition: Condition::Fresh,
        measures: &[
            cost("", "ms", Goal::AtMost(10.0)),
            cost("idle memory of all processes (PSS)", "MiB", Goal::AtMost(15.0)),
        ],
    },
    Workload {
        name: "W9",
        what: "imap over a generator of 1,000,000: pulled",
        condition: Condition::Warm,
        measures: &[cost("when 10 results were taken", "items", Goal::None), cost("1 s later", "items", Goal::None)],
    },
    Workload {
        name: "W10",
        what: "100,000 x apply_async(identity), then all results, 2 workers",
        condition: Condition::Warm,
        measures: &[
            cost("submitting, a call", "us", Goal::AtMost(5.0)).on_a_cluster(Goal::AtMost(5.0)),
            cost("all of it, a call", "us", Goal::None),
        ],
    },
];
