//! Sessions with a cluster, and calls for detached jobs, that the caller drives. They are for simulations, which run
//! whole clusters on one thread in simulated time.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_net::Secret;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{Label, OpenPool};
use tokio::sync::oneshot;

use super::Address;
pub use super::connect::{Connect, Connection};
use super::conversation::{self, Opener, Terms};
pub use super::detached::caller_driven::{DetachedClient, DetachedOutcomes, DetachingJob, ReadEvent};
pub use super::detached::connection::DetachedConnection;
use super::location::{DetachSettings, JobLocation};
use super::purpose::Purpose;
use super::shared::Shared;
use crate::carrier::Carrier;
use crate::cluster::executable::Executable;
use crate::error::Error;
use crate::front::Front;
use crate::gate::Gate;
use crate::inbox::Inbox;
use crate::program::Program;
use crate::session::Session;
use crate::settings::Settings;

/// A handle to a session, for its driver.
#[derive(Clone)]
pub struct SessionHandle(Arc<Shared>);

/// Opens this pool. Returns the session, its handle, a future that waits until the pool is open, and the conversation, which the
/// caller must drive to its end. The pool's secret seeds the random waits.
pub fn open<C: Connect>(
    connect: C,
    open: OpenPool,
    reconnect_timeout: Duration,
    front: Arc<dyn Front>,
) -> (Session, SessionHandle, impl Future<Output = Result<(), Error>>, impl Future<Output = Result<(), Error>>) {
    let address = Address::parse("simulation:1").expect("invalid address");
    let payload_limit = open.settings.as_ref().map_or(1 << 30, |settings| settings.payload_limit);
    let purpose = Purpose::Pool(address.clone());
    let secret = Secret::of(open.secret.clone());
    let terms = Terms { purpose, secret, payload_limit, reconnect_timeout, program: None, front };
    let shared = Shared::new(address, open.processes, open.into());
    let (sender, receiver) = oneshot::channel();
    let opener: Opener = Box::new(move |answer| drop(sender.send(answer)));
    let conversation = conversation::run(Arc::clone(&shared), connect, terms, opener);
    let opened = async { receiver.await.unwrap_or_else(|_| Err(Error::protocol("the conversation has ended"))) };
    let handle = SessionHandle(Arc::clone(&shared));
    (Session::over(Arc::new(CallerDriven(shared))), handle, opened, conversation)
}

/// Opens a session as [`Session::open`] does. Also returns a function that counts the calls whose threads have driven it.
///
/// # Errors
/// If it cannot be opened.
pub fn open_counting(
    address: Address,
    settings: Settings,
    front: Arc<dyn Front>,
) -> Result<(Session, impl Fn() -> u64), Error> {
    let carrier = Arc::new(super::open_session(address, settings, front)?);
    let driver = Arc::clone(&carrier.driver);
    Ok((Session::over(carrier), move || driver.calls()))
}

/// Returns the settings to detach jobs that run this program.
///
/// # Errors
/// If it cannot be read.
pub fn own_detach_settings(location: JobLocation, pool: OpenPool) -> Result<DetachSettings, Error> {
    Ok(DetachSettings { location, pool, program: Some(Executable::read(&Program::own().file)?) })
}

/// Returns the digest of this program.
///
/// # Errors
/// If it cannot be read.
pub fn own_digest() -> Result<Bytes, Error> {
    Ok(Executable::read(&Program::own().file)?.digest.to_bytes())
}

impl SessionHandle {
    /// Abandons the session without notifying the coordinator.
    pub fn abandon(&self) {
        self.0.abandon();
    }

    /// Returns how many jobs are kept to be resent, and how many messages of their items.
    pub fn kept(&self) -> (usize, usize) {
        self.0.state().kept.size()
    }

    /// Returns how many outcomes were dropped because their items already had one.
    pub fn repeated(&self) -> u64 {
        self.0.state().kept.repeated()
    }
}

struct CallerDriven(Arc<Shared>);

impl Carrier for CallerDriven {
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.0.submit(inbox, messages)
    }

    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.0.send(messages);
        Ok(())
    }

    /// The driving thread must not sleep.
    fn wait(&self, _: &Inbox, _: Option<Instant>) {}

    fn wait_closed(&self, _: Option<Instant>) -> bool {
        self.0.state().over
    }

    fn processes(&self) -> u32 {
        self.0.processes()
    }

    fn slots(&self) -> u32 {
        self.0.processes()
    }

    fn window(&self) -> u64 {
        self.0.window()
    }

    fn payload_limit(&self) -> u64 {
        self.0.payload_limit()
    }

    fn failure(&self) -> Option<Error> {
        self.0.state().inboxes.failure()
    }

    fn check_labels(&self, _: &[Label]) -> Result<(), Error> {
        Ok(())
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        Some(Arc::clone(&self.0.gate))
    }
}
