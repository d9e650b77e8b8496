//! farpool's agent, which owns a host's slots and worker processes.
//!
//! [`Agent`] is an agent without its connection to a coordinator: it takes [`AgentCommand`]s and produces
//! [`AgentEvent`]s. It has no thread and never blocks. Its driver calls, in turn, [`Agent::pump`] and [`Agent::arm`],
//! and sleeps on [`Agent::epoll`]. In local mode the client's process drives it, which saves two wake-ups per call.
//!
//! It never interprets functions, items or results.
//!
//! [`AgentCommand`]: farpool_proto::v1::AgentCommand
//! [`AgentEvent`]: farpool_proto::v1::AgentEvent

pub mod fork_server;
pub mod standard;
pub mod timer;

mod agent;
mod borrowers;
mod commands;
mod host;
mod pool;
mod protocol_error;
mod settings;
mod sharing;
mod slot_numbers;
mod slots;

pub use agent::Agent;
pub use pool::Armed;
pub use protocol_error::ProtocolError;
pub use settings::Settings;

pub(crate) use host::Host;
