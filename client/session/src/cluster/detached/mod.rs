//! Detached jobs: calls of the coordinator's `DetachedJobs`.
//!
//! Each of them has a thread of its own for as long as it takes, so that it can be waited for in any program, async or not.
//! When a connection is lost the call is made again, from where it was.

mod ask;
mod attempts;
pub(super) mod by_hand;
mod inbox;
pub(super) mod keeper;
mod outbox;
mod read;
mod refusal;
mod send;
mod thread;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_proto::v1::OpenPool;
use uuid::Uuid;

use super::Address;
use super::connect::Grpc;
use crate::cluster::executable::Executable;
use crate::environment;
use crate::error::Error;
use crate::settings::RECONNECT_TIMEOUT;
pub use ask::{about, cancel, discard};
use attempts::Attempts;
pub use inbox::End;
pub use read::{Reading, Step};
pub use send::Sending;

/// Where detached jobs are kept, and how long it is tried to get there when the connection is lost.
#[derive(Clone, Debug)]
pub struct Place {
    /// The coordinator's.
    pub address: Address,
    /// How long it is tried.
    pub patience: Duration,
}

/// A detached job as it is asked for.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name.
    pub name: Arc<str>,
    /// Which of all that have the name one after another; empty: whichever has it now.
    pub id: Bytes,
}

impl Named {
    /// Whichever job has the name.
    pub fn whichever(name: &str) -> Self {
        Self { name: name.into(), id: Bytes::new() }
    }

    /// As messages have it.
    fn parts(&self) -> (String, Bytes) {
        (self.name.to_string(), self.id.clone())
    }
}

/// What a pool on a cluster gives to the jobs that it detaches.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Where they are kept.
    pub place: Place,
    /// What their own pools are opened with.
    pub pool: OpenPool,
    /// What is sent to a coordinator that lacks it.
    pub(crate) program: Option<Executable>,
}

impl Place {
    /// The place of the coordinator at this address. How long it is tried is for `FARPOOL_RECONNECT_TIMEOUT` to say, or the default.
    ///
    /// # Errors
    /// If the address is none, or the variable no time.
    pub fn at(url: &str) -> Result<Self, Error> {
        let patience = environment::reconnect_timeout()?.unwrap_or(RECONNECT_TIMEOUT);
        Ok(Self { address: super::address(url)?, patience })
    }

    /// The way there.
    fn way(&self) -> Grpc {
        Grpc::new(&self.address)
    }

    fn attempts(&self) -> Attempts {
        Attempts::new(self.patience, Uuid::new_v4().as_u64_pair().1)
    }
}
