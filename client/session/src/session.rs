//! The session: a pool as its client sees it, in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use farpool_proto::v1::ClosePool;
use farpool_proto::v1::client_message::Body;

use crate::carrier::Carrier;
use crate::error::Error;
use crate::fork::{self, Owned, Owner};
use crate::front::Front;
use crate::inbox::Inbox;
use crate::local;
use crate::settings::{Settings, Target};

/// A session in the hands of the process that opened it. In a fork of that process everything is refused before a lock is
/// taken, nobody waits, and dropping it does nothing.
#[derive(Clone)]
pub struct Session {
    carrier: Owned<Arc<dyn Carrier>>,
    /// The number of the next job.
    jobs: Arc<AtomicU64>,
}

impl Session {
    /// Opens a pool.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(target: Target, settings: Settings, front: Arc<dyn Front>) -> Result<Self, Error> {
        Ok(Self::over(match target {
            // Workers on this machine print by themselves.
            Target::Here => {
                drop(front);
                local::open(settings)?
            }
            #[cfg(feature = "cluster")]
            Target::Cluster(address) => crate::cluster::open(address, settings, front)?,
        }))
    }

    /// A session that is open.
    pub fn over(carrier: Arc<dyn Carrier>) -> Self {
        Self { carrier: Owned::new(carrier), jobs: Arc::new(AtomicU64::new(1)) }
    }

    /// The number of a job that is new.
    pub(crate) fn next_job(&self) -> u64 {
        self.jobs.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes no further jobs; `now`: ends those that there are.
    pub fn close(&self, now: bool) {
        // A session that takes no messages any more has lost its workers already, or is losing them.
        let _ = self.send(&mut vec![Body::ClosePool(ClosePool { now })]);
    }

    /// The process that opened it.
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

    /// See [`Carrier::wait_closed`]: for a fork it is closed.
    pub fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        !self.owner().is_here() || self.carrier.wait_closed(deadline)
    }

    /// What can be asked without changing anything.
    ///
    /// # Errors
    /// In a fork.
    pub fn here(&self) -> Result<&dyn Carrier, Error> {
        fork::check_pool(self.owner())?;
        Ok(&**self.carrier)
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
