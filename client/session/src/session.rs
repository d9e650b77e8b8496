//! The session: a pool as its client sees it, in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use farpool_proto::v1::ClosePool;
use farpool_proto::v1::client_message::Body;

use crate::carrier::Carrier;
use crate::dropped_values::DroppedValues;
use crate::error::Error;
use crate::fork::{self, Owned, Owner};
use crate::front::Front;
use crate::inbox::Inbox;
use crate::item_limit::ItemLimit;
use crate::local;
use crate::settings::{Settings, Target};

/// A session, owned by the process that opened it. In a fork of that process every call is refused before it takes a lock,
/// no call waits, and dropping it does nothing.
#[derive(Clone)]
pub struct Session {
    carrier: Owned<Arc<dyn Carrier>>,
    /// The number of the next job.
    jobs: Arc<AtomicU64>,
    dropped_values: Arc<DroppedValues>,
}

impl Session {
    /// Opens a pool.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(target: Target, settings: Settings, front: Arc<dyn Front>) -> Result<Self, Error> {
        Ok(Self::over(match target {
            // Workers on this machine print directly.
            Target::Here => {
                drop(front);
                local::open(settings)?
            }
            #[cfg(feature = "cluster")]
            Target::Cluster(address) => crate::cluster::open(address, settings, front)?,
        }))
    }

    /// Wraps an open session.
    pub fn over(carrier: Arc<dyn Carrier>) -> Self {
        Self { carrier: Owned::new(carrier), jobs: Arc::new(AtomicU64::new(1)), dropped_values: Arc::default() }
    }

    /// Returns a new job number.
    pub(crate) fn next_job(&self) -> u64 {
        self.jobs.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn dropped_values(&self) -> &Arc<DroppedValues> {
        &self.dropped_values
    }

    /// Refuses further jobs; with `now`, also ends the open ones.
    pub fn close(&self, now: bool) {
        // A session that refuses messages has already lost its workers, or is losing them.
        let _ = self.send(&mut vec![Body::ClosePool(ClosePool { now })]);
    }

    /// Returns the process that opened it.
    #[inline]
    pub fn owner(&self) -> Owner {
        self.carrier.owner()
    }

    /// See [`Carrier::submit`].
    pub(crate) fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.carrier.submit(inbox, messages)
    }

    /// See [`Carrier::call`].
    pub(crate) fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.carrier.call(inbox, messages)
    }

    /// See [`Carrier::submit_soon`].
    pub(crate) fn submit_soon(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.carrier.submit_soon(inbox, messages)
    }

    /// See [`Carrier::send`].
    pub fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.check(messages)?;
        self.carrier.send(messages)
    }

    /// See [`Carrier::wait`].
    pub fn wait(&self, inbox: &Inbox, deadline: Option<Instant>) {
        if self.owner().is_here() {
            self.carrier.wait(inbox, deadline);
        }
    }

    /// See [`Carrier::wait_closed`]; in a fork it counts as closed.
    pub fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        !self.owner().is_here() || self.carrier.wait_closed(deadline)
    }

    /// Returns the carrier, for read-only calls.
    ///
    /// # Errors
    /// In a fork.
    pub fn here(&self) -> Result<&dyn Carrier, Error> {
        fork::check_pool(self.owner())?;
        Ok(&**self.carrier)
    }

    /// Returns how large an item may be in a pool with this limit.
    pub fn item_limit(&self, payload_limit: u64) -> ItemLimit {
        ItemLimit::new(payload_limit, self.carrier.payload_limit())
    }

    /// Checks the size of a job's function.
    ///
    /// # Errors
    /// If it is too large for the pool's coordinator.
    pub fn check_function(&self, bytes: usize) -> Result<(), Error> {
        self.item_limit(u64::MAX).check_function(bytes)
    }

    /// See [`Carrier::processes`]; a fork may ask it too.
    pub fn processes(&self) -> u32 {
        self.carrier.processes()
    }

    /// See [`Carrier::slots`]; a fork may ask it too.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.carrier.slots()
    }

    fn check(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        fork::check_pool(self.owner()).inspect_err(|_| messages.clear())
    }
}
