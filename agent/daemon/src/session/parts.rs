//! What a session is made of, that a simulation has otherwise.

use std::pin::Pin;

use farpool_net::Frames;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::{AgentEvent, CommandFrame};
use futures_core::Stream;
use tonic::Status;

/// What the coordinator sends on a connection.
pub type CommandFrames = Pin<Box<dyn Stream<Item = Result<CommandFrame, Status>> + Send>>;

/// The outcome of an attempt to connect, some time.
pub type Connecting = Pin<Box<dyn Future<Output = Result<CommandFrames, Status>> + Send>>;

/// A way to the coordinator.
pub trait Connect: Send {
    /// Opens a connection on which `frames` are sent.
    fn connect(&mut self, frames: Frames<AgentEvent>) -> Connecting;
}

/// Those who do the work: they know everything by numbers that never change, whatever becomes of sessions.
pub trait Workers: Send {
    /// Does what the coordinator says.
    ///
    /// # Errors
    /// If it makes no sense.
    fn command(&mut self, command: Command) -> Result<(), String>;

    /// One round of work. What the coordinator should know is appended to `events`. True if there is more to do at once.
    fn work(&mut self, events: &mut Vec<AgentEvent>) -> bool;

    /// Waits until there is something to do again. May be dropped without losing anything.
    ///
    /// # Errors
    /// If something that the coordinator has said turns out to make no sense.
    fn ready(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Leaves all outcomes where they are, or takes them again.
    fn hold(&mut self, hold: bool);

    /// The same for those of one pool.
    fn hold_pool(&mut self, pool: u64, hold: bool);

    /// A pool that was to stop as soon as it idles goes on after all.
    fn keep_pool(&mut self, pool: u64);

    /// Takes nothing more, gives back what has not begun, and finishes what runs.
    fn drain(&mut self);

    /// Whether the end of that has come, and everything was told.
    fn is_drained(&self) -> bool;

    /// Kills everything.
    fn stop_all(&mut self);

    /// Whether nothing is left that could be killed.
    fn is_empty(&self) -> bool;
}
