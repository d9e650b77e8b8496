//! Cluster mode: a session with a coordinator over gRPC.
//!
//! One task a session talks to the coordinator ([`conversation`]), on a thread of its own or on one that waits for a call
//! ([`driver`]). Threads of the program put what they have to say into its queue, and wait at their job's inbox; see
//! [`shared`] for what both sides touch. Nothing of this is started before a pool on a cluster is opened.

mod backoff;
#[cfg(feature = "simulation")]
mod by_hand;
mod connect;
mod conversation;
pub(crate) mod detached;
mod dial;
mod driver;
mod kept;
mod notice;
mod outage;
pub(crate) mod output;
mod program;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farpool_link::item_token::ItemToken;
use farpool_proto::v1::client_message::Body;
use farpool_proto::v1::{self, Label, OpenPool};
use uuid::{NoContext, Timestamp, Uuid};

use crate::error::{Error, ErrorKind};
use crate::gate::Gate;
use crate::inbox::Inbox;
use crate::session::Session;
use crate::settings::Settings;
#[cfg(feature = "simulation")]
pub(crate) use by_hand::{Conversation, converse};
#[cfg(feature = "simulation")]
pub use connect::{Connect, Connection};
use conversation::{Opener, Terms};
#[cfg(feature = "simulation")]
pub use detached::{Caller, DetachedOutcomes, Handing, Keeper, Next};
use detached::{Ground, Place};
use driver::Driver;
pub(crate) use farpool_common::address::Address;
use shared::Shared;

/// How long the end of a pool waits for its workers' output to be printed.
const PRINTING: Duration = Duration::from_secs(1);

/// Where a coordinator listens, as the user has written it.
pub(crate) fn address(url: &str) -> Result<Address, Error> {
    Address::parse(url).map_err(|error| Error::invalid(error.to_string()))
}

/// Opens a pool on the cluster at this address.
pub(crate) fn open(address: Address, settings: Settings) -> Result<Arc<dyn Session>, Error> {
    Ok(Arc::new(open_session(address, settings)?))
}

fn open_session(address: Address, settings: Settings) -> Result<ClusterSession, Error> {
    let Settings { processes, settings, require, weight, environment, reconnect_timeout } = settings;
    let (threads, payload_limit) = (settings.threads.max(1), settings.payload_limit);
    let id = Bytes::from(new_id().into_bytes().to_vec());
    let open = OpenPool {
        processes,
        settings: Some(settings),
        version: Some(farpool_proto::version()),
        program: program::describe(environment)?.packed(),
        require,
        weight,
        id: id.clone(),
        item: inherited_item(),
        ..OpenPool::default()
    };
    let place = Place { address: address.clone(), patience: reconnect_timeout };
    let ground = Ground { place, pool: OpenPool { id: Bytes::new(), item: None, ..open.clone() } };
    let terms = Terms { id, payload_limit, reconnect_timeout };
    let shared = Shared::new(address, processes, open);
    let (tell, told) = mpsc::sync_channel(1);
    let opener: Opener = Box::new(move |answer| drop(tell.send(answer)));
    let driver = Arc::new(Driver::default());
    let own = (Arc::clone(&shared), Arc::clone(&driver));
    thread::Builder::new()
        .name("farpool".into())
        .stack_size(crate::codec::STACK)
        .spawn(move || conversation::hold(&own.0, &own.1, terms, opener))
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("starting the pool's thread: {error}")))?;
    // From here on the session ends with this.
    let session = ClusterSession { shared, driver, threads, ground };
    let _lent = farpool_worker::lend();
    told.recv().unwrap_or_else(|_| Err(Error::protocol("the pool's thread ended unexpectedly")))?;
    Ok(session)
}

/// Returns the token of the item whose task started this process.
fn inherited_item() -> Option<v1::ItemToken> {
    let bytes = |number: u128| Bytes::copy_from_slice(&number.to_be_bytes());
    let ItemToken { agent, secret, position } = farpool_worker::inherited_item()?;
    Some(v1::ItemToken { agent: bytes(agent), secret: bytes(secret), position })
}

/// An id that nobody else has. Not by way of what the crate keeps for ids in order: that has a lock, which a fork of this
/// process may find held.
pub(crate) fn new_id() -> Uuid {
    Uuid::new_v7(Timestamp::now(NoContext))
}

struct ClusterSession {
    shared: Arc<Shared>,
    driver: Arc<Driver>,
    threads: u32,
    ground: Ground,
}

impl Session for ClusterSession {
    fn submit(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        let submitted = self.shared.submit(inbox, messages);
        self.driver.attend();
        submitted
    }

    fn call(&self, inbox: &Arc<Inbox>, messages: &mut Vec<Body>) -> Result<(), Error> {
        if let Some(driving) = self.driver.take(&self.shared) {
            return driving.until(async {
                self.shared.submit(inbox, messages)?;
                inbox.first_outcome().await;
                Ok(())
            });
        }
        self.submit(inbox, messages)?;
        self.wait(inbox, None);
        Ok(())
    }

    fn send(&self, messages: &mut Vec<Body>) -> Result<(), Error> {
        self.shared.send(messages);
        self.driver.attend();
        Ok(())
    }

    fn wait(&self, inbox: &Inbox, deadline: Option<Instant>) {
        if !inbox.has_news() {
            inbox.park(deadline);
        }
    }

    fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        let _lent = farpool_worker::lend();
        let over = self.shared.wait_until_over(deadline);
        output::flush(PRINTING);
        over
    }

    fn processes(&self) -> u32 {
        self.shared.processes()
    }

    fn slots(&self) -> u32 {
        self.processes().saturating_mul(self.threads)
    }

    fn window(&self) -> u64 {
        self.shared.window()
    }

    fn failure(&self) -> Option<Error> {
        self.shared.state().inboxes.failure()
    }

    fn waiting(&self) -> Option<String> {
        self.shared.waiting()
    }

    fn check_labels(&self, _: &[Label]) -> Result<(), Error> {
        // Agents may come at any time: until then the coordinator says why the job waits.
        Ok(())
    }

    fn ground(&self) -> Option<Ground> {
        Some(self.ground.clone())
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        Some(Arc::clone(&self.shared.gate))
    }
}

impl Drop for ClusterSession {
    fn drop(&mut self) {
        self.shared.abandon();
        self.driver.attend();
    }
}
