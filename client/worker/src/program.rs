//! What an agent has told of this program.

use std::env;
use std::sync::OnceLock;

use farpool_link::message::PROGRAM_VARIABLE;

static TOLD: OnceLock<String> = OnceLock::new();

/// The program's digest, in hexadecimal, if an agent has said it.
pub fn told() -> Option<&'static str> {
    TOLD.get().map(String::as_str)
}

/// This process was started by an agent, which may have said the program's digest. Whatever else inherits the variable
/// is another program, for all that is known.
pub(crate) fn remember() {
    if let Ok(digest) = env::var(PROGRAM_VARIABLE) {
        let _ = TOLD.set(digest);
    }
}
