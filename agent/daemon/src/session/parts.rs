//! The parts of a session that a simulation replaces.

use std::pin::Pin;

use farpool_net::Frames;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{AgentEvent, CommandFrame};
use futures_core::Stream;
use tonic::Status;

/// The frames that the coordinator sends on a connection.
pub type CommandFrames = Pin<Box<dyn Stream<Item = Result<CommandFrame, Status>> + Send>>;

/// An attempt to connect.
pub type Connecting = Pin<Box<dyn Future<Output = Result<CommandFrames, Status>> + Send>>;

/// Opens connections to the coordinator.
pub trait Connect: Send {
    /// Opens a connection on which `frames` are sent.
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting;
}

/// Does the work, under numbers that outlive sessions.
pub trait Workers: Send {
    /// Executes a command of the coordinator.
    ///
    /// # Errors
    /// If the command is invalid.
    fn command(&mut self, command: Command) -> Result<(), String>;

    /// Does one round of work, and appends events for the coordinator to `events`. Returns whether there is more to do
    /// at once.
    fn work(&mut self, events: &mut Vec<AgentEvent>) -> bool;

    /// Waits until there is more work. Cancel-safe.
    ///
    /// # Errors
    /// If an earlier command turns out to be invalid.
    fn ready(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Stops or resumes reading outcomes.
    fn hold(&mut self, hold: bool);

    /// Stops or resumes reading the outcomes of one pool.
    fn hold_pool(&mut self, pool: u64, hold: bool);

    /// Cancels the stop of a pool that was to stop when idle.
    fn cancel_pool_stop(&mut self, pool: u64);

    /// Drains the agent: it accepts no more items, returns the waiting ones and finishes the running ones.
    fn drain(&mut self);

    /// Returns whether draining is complete and everything was reported.
    fn is_drained(&self) -> bool;

    /// Kills all workers.
    fn stop_all(&mut self);

    /// Returns whether all workers have ended.
    fn is_empty(&self) -> bool;
}
