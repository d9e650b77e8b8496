//! What a pool is opened with.

use std::ffi::OsString;
use std::time::Duration;

#[cfg(feature = "cluster")]
use farpool_common::address::Address;
use farpool_proto::v1::{Label, WorkerSettings};

use crate::program::Program;

/// How long another connection is tried for, if nobody says it.
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

/// What a pool is opened with: every option checked and every default filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers that run at once; 0, on a cluster only: all slots.
    pub processes: u32,
    /// What the workers run.
    pub program: Program,
    /// What all workers have in common.
    pub settings: WorkerSettings,
    /// Labels of the hosts that may run the pool.
    pub require: Vec<Label>,
    /// The pool's share of the slots against other pools, at least 1.
    pub weight: u32,
    /// Environment variables of the workers: all of them on a cluster, those added to the client's own on this machine.
    pub environment: Vec<(OsString, OsString)>,
    /// On a cluster: how long another connection is tried for when one is lost.
    pub reconnect_timeout: Duration,
}
