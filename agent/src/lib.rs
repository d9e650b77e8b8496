//! farpool's agent: what owns a host's slots and worker processes.
//!
//! [`Agent`] is the whole of it without its connection to a coordinator: it is told [`AgentCommand`]s and leaves
//! [`AgentEvent`]s. It has no thread of its own and never blocks; whoever drives it calls, in turn,
//! [`Agent::pump`] and [`Agent::arm`], and sleeps on [`Agent::epoll`]. In local mode the client's process drives it,
//! which saves two wake-ups a call.
//!
//! It never looks into functions, items and results.
//!
//! [`AgentCommand`]: farpool_proto::v1::AgentCommand
//! [`AgentEvent`]: farpool_proto::v1::AgentEvent

pub mod fork_server;
pub mod standard;
pub mod timer;

mod agent;
mod ancestors;
mod borrowers;
mod commands;
mod host;
mod pool;
mod protocol_error;
mod settings;
mod sharing;
mod slots;

pub use agent::Agent;
pub use pool::Armed;
pub use protocol_error::ProtocolError;
pub use settings::Settings;

pub(crate) use host::Host;
