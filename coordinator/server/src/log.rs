//! What operators read.

pub(super) use farpool_common::log::Log;

/// The coordinator's log, or one that writes nothing.
pub(super) fn log(writes: bool) -> Log {
    if writes { Log::new("farpool-coordinator") } else { Log::silent() }
}
