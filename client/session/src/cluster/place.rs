//! Where detached jobs are kept, and what names them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farpool_common::address::Address;
use farpool_proto::v1::OpenPool;

use crate::cluster::executable::Executable;
use crate::environment;
use crate::error::Error;
use crate::settings::RECONNECT_TIMEOUT;

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
}

impl Named {
    /// Names the job that has the name now.
    pub fn whichever(name: &str) -> Self {
        Self { name: name.into(), id: Bytes::new() }
    }

    /// Converts it to its message.
    pub(super) fn parts(&self) -> (String, Bytes) {
        (self.name.to_string(), self.id.clone())
    }
}
