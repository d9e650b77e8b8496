use std::ffi::OsString;
use std::time::Duration;

use farpool_proto::v1::{Label, WorkerSettings};

/// How long another connection is tried for, if nobody says it.
pub(crate) const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a pool is opened with: every option checked and every default filled in.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Workers that run at once; 0, on a cluster only: all slots.
    pub(crate) processes: u32,
    /// What all workers have in common.
    pub(crate) settings: WorkerSettings,
    /// Labels of the hosts that may run the pool.
    pub(crate) require: Vec<Label>,
    /// The pool's share of the slots against other pools, at least 1.
    pub(crate) weight: u32,
    /// Environment variables of the workers: all of them on a cluster, those added to the client's own on this machine.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// On a cluster: how long another connection is tried for when one is lost.
    pub(crate) reconnect_timeout: Duration,
}
