//! Exit codes of workers that exit for reasons of farpool's own. They are unusual on purpose, and only a hint: a task
//! may exit with any code.

/// The agent has closed the connection.
pub const AGENT_GONE: i32 = 250;
/// The connection to the agent broke in the worker: a task has closed file descriptors that are not its own.
pub const LOST_CONNECTION: i32 = 251;
/// The worker found the memory that it shares with the agent corrupt.
pub const BROKEN_LINK: i32 = 252;
