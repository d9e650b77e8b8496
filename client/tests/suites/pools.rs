//! Opens the suites' pools: on this machine, or on the cluster that the case runs on.

use std::env;

use farpool::{Builder, Pool};
use farpool_testkit::processes::TAG;

use crate::cluster;

/// Variables of the client that workers on a cluster get.
const PASSED_ON: [&str; 3] = [TAG, "FARPOOL_TEST_SCENARIO", "RUST_BACKTRACE"];

/// Returns a builder for a pool that runs where this case runs.
pub(crate) fn builder() -> Builder {
    if !cluster::is_on_cluster() {
        return Pool::builder().local();
    }
    // The address is in the environment.
    let passed_on = PASSED_ON.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
    passed_on.fold(Pool::builder(), |builder, (name, value)| builder.env(name, value))
}

/// Opens a pool with this many processes.
pub(crate) fn of(processes: usize) -> Pool {
    pool(builder().processes(processes))
}

/// Opens a pool with these options.
pub(crate) fn pool(options: Builder) -> Pool {
    options.build().expect("cannot open the pool")
}
