//! The behaviour of every pool, wherever it runs: the promises of the API, one file per topic.
//!
//! All pools come from [`pools`]: each case runs on this machine, and on a real cluster of three agents.

mod arguments;
mod async_use;
mod callbacks;
mod capture;
mod elastic;
mod errors;
mod imap;
mod inputs;
mod life;
mod memory;
mod on_a_cluster;
mod options;
mod printing;
mod progress;
mod results;
mod shared;
mod tasks;
mod threads;
mod values;
mod verbs;
mod waiting;
mod workers;

use crate::runner::{Case, Suite};

pub(crate) const SUITE: Suite = Suite {
    both: BOTH,
    cluster_only: &[elastic::CASES, on_a_cluster::CASES, printing::CASES, waiting::CASES],
    local_only: LOCAL_ONLY,
    own_cluster: &[],
};

const BOTH: &[&[Case]] = &[
    arguments::CASES,
    async_use::CASES,
    callbacks::CASES,
    errors::CASES,
    imap::CASES,
    inputs::CASES,
    life::CASES,
    memory::CASES,
    options::CASES,
    progress::CASES,
    shared::CASES,
    results::CASES,
    threads::CASES,
    values::CASES,
    verbs::CASES,
    workers::CASES,
];

/// Cases that do not run on a cluster, and why. All others do.
const LOCAL_ONLY: &[(&str, &str)] = &[
    ("workers::replaced_workers_exit", "it counts the processes of one host"),
    ("workers::the_default_is_one_process_per_core", "it is all slots there: see on_a_cluster"),
];
