//! The settings of a pool.

use std::ffi::OsString;
use std::time::Duration;

#[cfg(feature = "cluster")]
use farpool_common::address::Address;
use farpool_proto::v1::{Label, WorkerSettings};

use crate::program::Program;

/// The default of how long to try to reconnect.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a pool runs.
#[derive(Clone, Debug)]
pub enum Target {
    /// On this machine.
    Here,
    /// On the cluster of the coordinator at this address.
    #[cfg(feature = "cluster")]
    Cluster(Address),
}

/// The settings of a pool: every option checked and every default filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers run at once. On a cluster, 0 means all slots.
    pub processes: u32,
    /// The program that the workers run.
    pub program: Program,
    /// Settings of the workers, the same for all.
    pub settings: WorkerSettings,
    /// Labels of the hosts that may run the pool.
    pub require: Vec<Label>,
    /// The pool's share of the slots against other pools, at least 1.
    pub weight: u32,
    /// Environment variables of the workers: all of them on a cluster, those added to the client's own on this machine.
    pub environment: Vec<(OsString, OsString)>,
    /// On a cluster: how long to try to reconnect after the connection was lost.
    pub reconnect_timeout: Duration,
}
