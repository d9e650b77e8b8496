//! Every failure that one machine can produce: what the caller gets, what continues, and that nothing is left behind.

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
mod sizes;
mod standstill;
mod starts;
mod tasks;
mod timeouts;
mod unhealthy;

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
    unhealthy::CASES,
];

/// Cases that do not run on a cluster, and why. All others do.
const LOCAL_ONLY: &[(&str, &str)] = &[
    ("aborts", "its program opens a pool on this machine"),
    ("clients::the_fork_server_is_killed_together_with_the_client", "fork servers are children of agents"),
    ("forgetful::a_program_that_ignores_sigchld", "workers inherit from agents"),
    ("fork_server", "fork servers are children of agents"),
    ("inherited::a_file_size_limit_below_a_workers_memory", "an agent does not even start"),
    ("inherited::the_controlling_terminal", "its program opens a pool on this machine"),
    ("kills::with_another_worker_in_its_process_group", "its two workers must have the same fork server"),
    ("misuse::addresses_of_clusters", "it sets the address itself"),
    ("nested::an_outer_workers_death_ends_its_inner_pool", "workers of both pools are children of agents"),
    ("starts::an_address_that_is_not_utf8", "it sets the address itself"),
    ("starts::no_proc", "workers are started by agents"),
    ("starts::a_plugin_with_its_own_farpool", "its pool is on this machine"),
    ("output::large_output_passes_directly", "output is labelled, and its rate is limited"),
];

/// Cases whose effects on the agents outlive their pools.
const OWN_CLUSTER: &[(&str, &str)] = &[
    ("inherited", "it starts its agents in an unusual state"),
    ("initializers", "workers die at their start, which agents remember"),
    ("starts", "workers die at their start, which agents remember"),
];
