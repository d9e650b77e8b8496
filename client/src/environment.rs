//! The environment variables that farpool's client reads.

use std::env;

/// The address of the cluster that pools run on; not set or empty: this machine.
pub(crate) const ADDRESS: &str = "FARPOOL_ADDRESS";

/// The value of [`ADDRESS`], if there is one.
pub(crate) fn address() -> Option<String> {
    env::var(ADDRESS).ok().filter(|address| !address.is_empty())
}
