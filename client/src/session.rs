//! The line between what is typed and what is bytes: everything above it is the same on one machine and on a cluster.

use std::sync::Arc;
use std::time::Instant;

use farpool_proto::v1::Label;
use farpool_proto::v1::client_message::Body;

use crate::cluster::detached::Ground;
use crate::error::Error;
use crate::fork::{self, Owned, Owner};
use crate::gate::Gate;
use crate::inbox::Inbox;

/// A client's session with a coordinator.
///
/// It makes progress by itself, whether or not somebody waits. It delivers to inboxes on any thread.
pub(crate) trait Session: Send + Sync + 'static {
    /// Opens a job: `messages` begin with its [`Body::OpenJob`], and first items may follow.
    ///
    /// The session delivers the job's outcomes to `inbox`, grants it room as they come, and then delivers its end, exactly once; after an error it delivers
    /// nothing. Drains `messages`; never blocks for long.
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error>;

    /// Opens a job of one item as [`Session::submit`] does, and blocks until there is news of it; it may return early.
    fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.submit(inbox, messages)?;
        self.wait(inbox, None);
        Ok(())
    }

    /// As [`Session::submit`], for a small job for which nobody waits yet: many that come one after another may be taken in together, a
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
    fn ground(&self) -> Option<Ground> {
        None
    }

    /// What the session passes before it reads on, if it reads from a stream.
    fn gate(&self) -> Option<Arc<Gate>> {
        None
    }
}

/// A session in the hands of the process that opened it. In a fork of that process everything is refused before a lock is
/// taken, nobody waits, and dropping it does nothing.
#[derive(Clone)]
pub(crate) struct SessionHandle(Owned<Arc<dyn Session>>);

impl SessionHandle {
    pub(crate) fn new(session: Arc<dyn Session>) -> Self {
        Self(Owned::new(session))
    }

    /// The process that opened it.
    pub(crate) fn owner(&self) -> Owner {
        self.0.owner()
    }

    /// See [`Session::submit`].
    pub(crate) fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.0.submit(inbox, messages)
    }

    /// See [`Session::call`].
    pub(crate) fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.0.call(inbox, messages)
    }

    /// See [`Session::submit_soon`].
    pub(crate) fn submit_soon(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.0.submit_soon(inbox, messages)
    }

    /// See [`Session::send`].
    pub(crate) fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.0.send(messages)
    }

    /// See [`Session::wait`].
    pub(crate) fn wait(&self, inbox: &Inbox, deadline: Option<Instant>) {
        if self.owner().is_here() {
            self.0.wait(inbox, deadline);
        }
    }

    /// See [`Session::wait_closed`]: for a fork it is closed.
    pub(crate) fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        !self.owner().is_here() || self.0.wait_closed(deadline)
    }

    /// What can be asked without changing anything.
    ///
    /// # Errors
    /// In a fork.
    pub(crate) fn here(&self) -> Result<&dyn Session, Error> {
        fork::check_pool(self.owner())?;
        Ok(&**self.0)
    }

    /// See [`Session::processes`]; a fork may ask it too.
    pub(crate) fn processes(&self) -> u32 {
        self.0.processes()
    }

    /// See [`Session::slots`]; a fork may ask it too.
    pub(crate) fn slots(&self) -> u32 {
        self.0.slots()
    }

    fn check(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        fork::check_pool(self.owner()).inspect_err(|_| messages.clear())
    }
}
