//! The coordinator as a server: real gRPC over loopback, fake clients and agents, and what is no client and no agent.

mod agent;
mod client;
mod server;

mod sessions;
