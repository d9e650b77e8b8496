//! The environment variables that farpool's client reads.

use std::env;
use std::sync::OnceLock;

/// The address of the cluster that pools run on; not set or empty: this machine.
pub(crate) const ADDRESS: &str = "FARPOOL_ADDRESS";
/// The digest of this program, in a worker on a cluster.
pub(crate) const PROGRAM: &str = "FARPOOL_PROGRAM";

static TOLD_PROGRAM: OnceLock<String> = OnceLock::new();

/// The value of [`ADDRESS`], if there is one.
pub(crate) fn address() -> Option<String> {
    env::var(ADDRESS).ok().filter(|address| !address.is_empty())
}

/// This process was started by an agent, which may have said the program's digest. Whatever else inherits the variable
/// is another program, for all that is known.
pub(crate) fn remember_program() {
    if let Ok(digest) = env::var(PROGRAM) {
        let _ = TOLD_PROGRAM.set(digest);
    }
}

/// The program's digest, if an agent has said it.
pub(crate) fn program() -> Option<&'static str> {
    TOLD_PROGRAM.get().map(String::as_str)
}
