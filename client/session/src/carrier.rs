//! How a session gets to its coordinator: everything above it is the same on one machine and on a cluster.

use std::sync::Arc;
use std::time::Instant;

use farpool_proto::v1::Label;
use farpool_proto::v1::client_message::Body;

#[cfg(feature = "cluster")]
use crate::detached::Ground;
use crate::error::Error;
use crate::gate::Gate;
use crate::inbox::Inbox;

/// What carries a client's session with a coordinator.
///
/// It makes progress by itself, whether or not somebody waits. It delivers to inboxes on any thread.
pub trait Carrier: Send + Sync + 'static {
    /// Opens a job: `messages` begin with its [`Body::OpenJob`], and first items may follow.
    ///
    /// The session delivers the job's outcomes to `inbox`, grants it room as they come, and then delivers its end, exactly once; after an error it delivers
    /// nothing. Drains `messages`; never blocks for long.
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error>;

    /// Opens a job of one item as [`Carrier::submit`] does, and blocks until there is news of it; it may return early.
    fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.submit(inbox, messages)?;
        self.wait(inbox, None);
        Ok(())
    }

    /// As [`Carrier::submit`], for a small job for which nobody waits yet: many that come one after another may be taken in together, a
    /// moment later. What is wrong with it may then become the job's end instead of an error.
    fn submit_soon(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.submit(inbox, messages)
    }

    /// Hands over further messages, in order, and lets the session act on them. Messages for a job that has ended are
    /// dropped without an error. Drains `messages`; never blocks for long.
    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error>;

    /// Blocks until `inbox.has_news()` or the deadline has passed; it may return early.
    fn wait(&self, inbox: &Inbox, deadline: Option<Instant>);

    /// Blocks until no job is left and the workers are gone; `false` if the deadline came first.
    fn wait_closed(&self, deadline: Option<Instant>) -> bool;

    /// How many workers run at once. On a cluster it may change at any time. Takes no lock.
    fn processes(&self) -> u32;

    /// How many items run at once: workers with threads run several. Takes no lock.
    fn slots(&self) -> u32;

    /// Bytes of items that each job may send before its inbox has been granted more.
    fn window(&self) -> u64;

    /// Why the pool cannot run anything any more, if it failed.
    fn failure(&self) -> Option<Error>;

    /// Why nothing of the pool can run for now, if that is so.
    fn waiting(&self) -> Option<String> {
        None
    }

    /// Checks that a job that requires these labels may run some time.
    fn check_labels(&self, require: &[Label]) -> Result<(), Error>;

    /// What jobs need that are detached from the pool, if it is on a cluster.
    #[cfg(feature = "cluster")]
    fn ground(&self) -> Option<Ground> {
        None
    }

    /// What the session passes before it reads on, if it reads from a stream.
    fn gate(&self) -> Option<Arc<Gate>> {
        None
    }
}
