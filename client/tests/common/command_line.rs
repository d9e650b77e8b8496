//! The binary `farpool`, where a test of the library needs it.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::binaries;

/// The command line's executable, which is built like the daemons.
pub(crate) fn farpool() -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    let farpool = binaries::folder().join("farpool");
    MADE.get_or_init(|| {
        let sources = binaries::newest_source(&["proto", "coordinator", "agent", "client/src", "client/cli"]);
        binaries::build(std::slice::from_ref(&farpool), sources, &["-p", "farpool-cli"]);
    });
    farpool
}
