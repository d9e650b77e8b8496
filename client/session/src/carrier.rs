//! How a session reaches its coordinator: everything above is the same on one machine and on a cluster.

use std::sync::Arc;
use std::time::Instant;

use farpool_proto::v1::Label;
use farpool_proto::v1::client_message::Body;

#[cfg(feature = "cluster")]
use crate::cluster::location::DetachSettings;
use crate::error::Error;
use crate::gate::Gate;
use crate::inbox::Inbox;

/// Carries a client's session with a coordinator.
///
/// It makes progress even while no thread waits. It delivers to inboxes on any thread.
pub trait Carrier: Send + Sync + 'static {
    /// Opens a job: the first of `messages` is its [`Body::OpenJob`], and items may follow.
    ///
    /// The session delivers the job's outcomes to `inbox`, grants it room as they arrive, and then delivers its end,
    /// exactly once. After an error it delivers nothing. Drains `messages`; never blocks for long.
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error>;

    /// Opens a job of one item as [`Carrier::submit`] does, and blocks until something of it has arrived. It may return
    /// early.
    fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.submit(inbox, messages)?;
        self.wait(inbox, None);
        Ok(())
    }

    /// Opens a small job that no thread waits for yet. Several such jobs may be batched and handled a moment later; an
    /// error may then become the job's end. Otherwise it does what [`Carrier::submit`] does.
    fn submit_soon(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.submit(inbox, messages)
    }

    /// Sends further messages, in order, and lets the session act on them. Messages for a job that has ended are
    /// dropped without an error. Drains `messages`; never blocks for long.
    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error>;

    /// Blocks until `inbox.has_arrivals()` or the deadline has passed; it may return early.
    fn wait(&self, inbox: &Inbox, deadline: Option<Instant>);

    /// Blocks until no job is open and the workers are gone; `false` if the deadline passed first.
    fn wait_closed(&self, deadline: Option<Instant>) -> bool;

    /// Returns how many workers run at once. On a cluster it may change at any time. Takes no lock.
    fn processes(&self) -> u32;

    /// Returns the process ids of the running workers, if they are on this machine and belong to this pool alone; otherwise
    /// none.
    fn worker_pids(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Returns how many items run at once: workers with threads run several. Takes no lock.
    fn slots(&self) -> u32;

    /// Returns the bytes of items that each job may send before its inbox is granted more.
    fn window(&self) -> u64;

    /// Returns the most bytes of an item or a function, whatever the pool allows.
    fn payload_limit(&self) -> u64 {
        u64::MAX
    }

    /// Returns why the pool can no longer run anything, if it failed.
    fn failure(&self) -> Option<Error>;

    /// Returns why nothing of the pool can run at the moment, if so.
    fn waiting(&self) -> Option<String> {
        None
    }

    /// Checks that a job that requires these labels can ever run.
    fn check_labels(&self, require: &[Label]) -> Result<(), Error>;

    /// Returns what detached jobs of this pool need; `None` unless it is on a cluster.
    #[cfg(feature = "cluster")]
    fn detach_settings(&self) -> Option<DetachSettings> {
        None
    }

    /// Returns the gate that the session passes before it reads on, if it reads from a stream.
    fn gate(&self) -> Option<Arc<Gate>> {
        None
    }
}
