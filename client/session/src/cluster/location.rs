//! Where detached jobs are kept, and how requests name them.

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
pub struct JobLocation {
    /// The coordinator's address.
    pub address: Address,
    /// How long to try to reconnect.
    pub reconnect_timeout: Duration,
}

/// The identity of a detached job in requests.
#[derive(Clone, Debug)]
pub struct JobRef {
    /// Its name.
    pub name: Arc<str>,
    /// Distinguishes successive jobs of one name; empty: the job that has the name now.
    pub id: Bytes,
}

/// The settings that a pool on a cluster passes to its detached jobs.
#[derive(Clone, Debug)]
pub struct DetachSettings {
    /// The coordinator that keeps them.
    pub location: JobLocation,
    /// The message that opens their own pools.
    pub pool: OpenPool,
    /// The program, for a coordinator that lacks it.
    pub(crate) program: Option<Executable>,
}

impl JobLocation {
    /// Returns the location of the coordinator at this address, with the timeout in `FARPOOL_RECONNECT_TIMEOUT`, or the default.
    ///
    /// # Errors
    /// If the address, or the variable's value, is invalid.
    pub fn at(url: &str) -> Result<Self, Error> {
        let reconnect_timeout = environment::reconnect_timeout()?.unwrap_or(RECONNECT_TIMEOUT);
        Ok(Self { address: super::address(url)?, reconnect_timeout })
    }
}

impl JobRef {
    /// Refers to the job that has this name now.
    pub fn by_name(name: &str) -> Self {
        Self { name: name.into(), id: Bytes::new() }
    }

    /// Returns its fields for a request.
    pub(super) fn parts(&self) -> (String, Bytes) {
        (self.name.to_string(), self.id.clone())
    }
}
