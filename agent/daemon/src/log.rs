//! What is said on stderr.

use std::fmt::Display;
use std::sync::LazyLock;

use farpool_common::log::Log;

static LOG: LazyLock<Log> = LazyLock::new(|| Log::new("farpool-agent"));

/// Says something to whoever reads it.
pub(super) fn log(text: impl Display) {
    LOG.line(text);
}
