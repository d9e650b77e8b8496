//! Detached jobs: calls of the coordinator's `DetachedJobs`.
//!
//! Each call runs on a separate thread, so that any program, async or not, can wait for it. If the connection is lost, the call
//! is retried, and resumes where it was.

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

/// The coordinator that keeps detached jobs, and how long to try to reconnect to it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The coordinator's address.
    pub address: Address,
    /// How long to try.
    pub patience: Duration,
}

/// The identity of a detached job in requests.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name.
    pub name: Arc<str>,
    /// Distinguishes successive jobs of one name; empty: the job that has the name now.
    pub id: Bytes,
}

impl Named {
    /// Names the job that has the name now.
    pub fn whichever(name: &str) -> Self {
        Self { name: name.into(), id: Bytes::new() }
    }

    /// Converts it to its message.
    fn parts(&self) -> (String, Bytes) {
        (self.name.to_string(), self.id.clone())
    }
}

/// The settings that a pool on a cluster passes to its detached jobs.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The coordinator that keeps them.
    pub place: Place,
    /// The message that opens their own pools.
    pub pool: OpenPool,
    /// The program, for a coordinator that lacks it.
    pub(crate) program: Option<Executable>,
}

impl Place {
    /// Returns the place of the coordinator at this address, with the timeout in `FARPOOL_RECONNECT_TIMEOUT`, or the default.
    ///
    /// # Errors
    /// If the address, or the variable's value, is invalid.
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
