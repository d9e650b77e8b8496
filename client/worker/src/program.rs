//! The digest of this program, as the agent reported it.

use std::env;
use std::sync::OnceLock;

use farpool_link::message::PROGRAM_VARIABLE;

static DIGEST: OnceLock<String> = OnceLock::new();

/// Returns the program's digest in hexadecimal, if an agent reported it.
pub fn digest() -> Option<&'static str> {
    DIGEST.get().map(String::as_str)
}

/// Remembers the digest in a process that an agent started. Any other process that inherits the variable may be another
/// program.
pub(crate) fn remember() {
    if let Ok(digest) = env::var(PROGRAM_VARIABLE) {
        let _ = DIGEST.set(digest);
    }
}
