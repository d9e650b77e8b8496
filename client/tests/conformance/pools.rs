//! The one place where this suite opens pools.

use farpool::{Builder, Pool};

/// A pool with these options.
pub(crate) fn pool(options: Builder) -> Pool {
    options.local().build().expect("the pool opens")
}

/// A pool of so many processes.
pub(crate) fn of(processes: usize) -> Pool {
    pool(Pool::builder().processes(processes))
}
