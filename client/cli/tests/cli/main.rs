//! Tests the binary `farpool` as people and scripts call it, and the files in deploy/.

mod address;
mod cluster;
mod deploy;
mod detached;
mod detached_server;
mod factorial;
mod help;
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
mod namespaces;
mod operators;
mod results;
mod service;
mod shared;
mod support;
