//! The one place where the suites open pools: on this machine, or on the cluster that the case runs on.

use std::env;

use farpool::{Builder, Pool};
use farpool_testkit::processes::TAG;

use crate::cluster;

/// What workers on a cluster are to have of a client's environment.
const PASSED_ON: [&str; 3] = [TAG, "FARPOOL_TEST_SCENARIO", "RUST_BACKTRACE"];

/// The options of a pool that runs where this case, or the task that it has started, runs.
pub(crate) fn builder() -> Builder {
    if !cluster::is_here() {
        return Pool::builder().local();
    }
    // The address is in the environment.
    let passed_on = PASSED_ON.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
    passed_on.fold(Pool::builder(), |builder, (name, value)| builder.env(name, value))
}

/// A pool of so many processes.
pub(crate) fn of(processes: usize) -> Pool {
    pool(builder().processes(processes))
}

/// A pool with these options.
pub(crate) fn pool(options: Builder) -> Pool {
    options.build().expect("the pool opens")
}
