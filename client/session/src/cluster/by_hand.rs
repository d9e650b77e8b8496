//! Sessions with a cluster, and calls for detached jobs, that somebody else drives: for simulations, which run whole clusters on one
//! thread, in a time of their own. Nothing of this is for users.

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
pub use super::detached::by_hand::{Caller, DetachedOutcomes, Handing, Next};
pub use super::detached::keeper::Keeper;
use super::errand::Errand;
use super::place::{Ground, Place};
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

/// What whoever drives a session sees of it.
#[derive(Clone)]
pub struct Hands(Arc<Shared>);

/// A session that opens this pool, what waits until it is open, and its conversation, which is to be driven to its end.
/// Chance is made from the pool's id.
pub fn open<C: Connect>(
    connect: C,
    open: OpenPool,
    reconnect_timeout: Duration,
    front: Arc<dyn Front>,
) -> (Session, Hands, impl Future<Output = Result<(), Error>>, impl Future<Output = Result<(), Error>>) {
    let address = Address::parse("simulation:1").expect("it has a host and a port");
    let payload_limit = open.settings.as_ref().map_or(1 << 30, |settings| settings.payload_limit);
    let errand = Errand::Pool(address.clone());
    let secret = Secret::of(open.secret.clone());
    let terms = Terms { errand, secret, payload_limit, reconnect_timeout, program: None, front };
    let shared = Shared::new(address, open.processes, open.into());
    let (tell, told) = oneshot::channel();
    let opener: Opener = Box::new(move |answer| drop(tell.send(answer)));
    let talk = conversation::talk(Arc::clone(&shared), connect, terms, opener);
    let opened = async { told.await.unwrap_or_else(|_| Err(Error::protocol("the conversation has ended"))) };
    let hands = Hands(Arc::clone(&shared));
    (Session::over(Arc::new(ByHand(shared))), hands, opened, talk)
}

/// A session as [`Session::open`] opens it, and what counts the calls whose threads have driven it.
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

/// What jobs are detached with whose program is this one.
///
/// # Errors
/// If it cannot be read.
pub fn own_ground(place: Place, pool: OpenPool) -> Result<Ground, Error> {
    Ok(Ground { place, pool, program: Some(Executable::read(&Program::own().file)?) })
}

/// The digest of this program.
///
/// # Errors
/// If it cannot be read.
pub fn own_digest() -> Result<Bytes, Error> {
    Ok(Executable::read(&Program::own().file)?.digest.to_bytes())
}

impl Hands {
    /// Goes away without a word.
    pub fn abandon(&self) {
        self.0.abandon();
    }

    /// Jobs of which something is kept for another coordinator, and messages of items of theirs.
    pub fn kept(&self) -> (usize, usize) {
        self.0.state().kept.size()
    }

    /// Outcomes that came for items that had theirs, and were dropped.
    pub fn repeated(&self) -> u64 {
        self.0.state().kept.repeated()
    }
}

struct ByHand(Arc<Shared>);

impl Carrier for ByHand {
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.0.submit(inbox, messages)
    }

    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.0.send(messages);
        Ok(())
    }

    /// Whoever drives must not sleep.
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
