//! The binary `farpool`, as people and scripts call it.

#[path = "../../../tests/common/binaries.rs"]
mod binaries;
#[path = "../common/local_cluster.rs"]
mod local_cluster;

mod address;
mod cluster;
mod detached;
mod help;
mod keeper;
mod limits;
mod map_blocks;
mod map_failures;
mod map_flow;
mod map_items;
mod map_options;
mod map_outputs;
mod map_results;
mod map_retries;
mod map_words;
mod operators;
mod results;
mod service;
mod support;
