//! The coordinator as a server: real gRPC over loopback, with fake clients and agents, and with peers that are neither.

mod agent;
mod client;
mod raw;
mod server;

mod agents;
mod clients;
mod connections;
mod detached;
mod flood;
mod flood_agents;
mod frames;
mod limits;
mod memory;
mod operators;
mod owners;
mod process;
mod programs;
mod restart;
mod resume;
mod sessions;
mod shutdown;
mod turns;
