//! Every failure that one machine can show, really made to happen: what the caller is told, what goes on, and that
//! nothing is left behind.

mod abandoned;
mod aborts;
mod agents;
mod cancel;
mod checks;
mod client;
mod clients;
mod codec;
mod crowd;
mod deaths;
mod descriptors;
mod detached;
mod fenced;
mod forgetful;
mod fork_server;
mod forks;
mod inherited;
mod initializers;
mod inputs;
mod kills;
mod large;
mod litter;
mod misuse;
mod nested;
mod operators;
mod outages;
mod output;
mod outside;
mod overload;
mod panics;
mod retries;
pub(crate) mod scenarios;
mod sick;
mod sizes;
mod standstill;
mod starts;
mod tasks;
mod timeouts;

use crate::runner::{Case, Suite};

pub(crate) const SUITE: Suite =
    Suite { both: BOTH, cluster_only: CLUSTER_ONLY, local_only: LOCAL_ONLY, own_cluster: OWN_CLUSTER };

const BOTH: &[&[Case]] = &[
    aborts::CASES,
    cancel::CASES,
    clients::CASES,
    codec::CASES,
    crowd::CASES,
    deaths::CASES,
    descriptors::CASES,
    fork_server::CASES,
    forks::CASES,
    forgetful::CASES,
    inherited::CASES,
    initializers::CASES,
    inputs::CASES,
    kills::CASES,
    large::CASES,
    litter::CASES,
    misuse::CASES,
    nested::CASES,
    output::CASES,
    outside::CASES,
    panics::CASES,
    retries::CASES,
    sizes::CASES,
    standstill::CASES,
    starts::CASES,
    timeouts::CASES,
];

const CLUSTER_ONLY: &[&[Case]] = &[
    abandoned::CASES,
    agents::CASES,
    detached::forked::CASES,
    detached::losses::CASES,
    detached::outcomes::CASES,
    detached::refused::CASES,
    fenced::CASES,
    inherited::OF_CLUSTERS,
    outages::CASES,
    overload::CASES,
    sick::CASES,
];

/// Of the others, on a cluster the same is promised and shown.
const LOCAL_ONLY: &[(&str, &str)] = &[
    ("aborts", "its program opens a pool on this machine"),
    ("clients::the_fork_server_is_killed_together_with_the_client", "fork servers are children of agents"),
    ("forgetful::a_program_that_ignores_the_end_of_its_children", "workers inherit from agents"),
    ("fork_server", "fork servers are children of agents"),
    ("inherited::a_limit_on_files_below_a_workers_memory", "an agent does not even start"),
    ("inherited::the_controlling_terminal", "its program opens a pool on this machine"),
    ("kills::in_whose_process_group_another_worker_is", "its two workers are to be of one fork server"),
    ("misuse::addresses_of_clusters", "it sets the address itself"),
    ("nested::an_outer_worker_that_dies_takes_its_inner_pool_along", "workers of both pools are children of agents"),
    ("starts::an_address_that_is_no_utf8", "it sets the address itself"),
    ("starts::no_proc", "workers are started by agents"),
    ("starts::a_plugin_with_a_farpool_of_its_own", "its pool is on this machine"),
    ("output::megabytes_go_straight_through", "output is labelled, and bounded in its rate"),
];

/// What they do to the agents outlives their pools.
const OWN_CLUSTER: &[(&str, &str)] = &[
    ("inherited", "its agents are started in its own way"),
    ("initializers", "workers die at their start, which agents remember"),
    ("starts", "workers die at their start, which agents remember"),
];
