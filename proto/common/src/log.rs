//! The log of a daemon for its operators: one line per event on stderr, as text or as JSON.
//!
//! An event has a level, a message that never varies, and fields: `info!(log, host, slots, "agent joined")`. The macros
//! [`error!`], [`warn!`] and [`info!`] take the same arguments as those of `tracing`, after the log. **Error**:
//! something is lost, or cannot be served. **Warn**: an operator should look. **Info**: all is well.
//!
//! Each log has its own dispatcher, so that several servers in one process write several logs. Messages of libraries
//! are left out. Writing a line never waits for a reader. A line that is repeated within a second is only counted, and
//! written once with the count after that time. If repetitions continue, the window doubles, up to 64 s. Ports of peers
//! do not distinguish lines. In total there are at most 20 lines per second.

mod collector;
mod format;
mod limit;
mod line;
mod lines;
mod stderr;

use std::sync::Arc;

#[doc(hidden)]
pub use tracing;
use tracing::Dispatch;

pub use crate::{error, info, warn};
use collector::Collector;
pub use format::Format;
use lines::Lines;

/// A daemon's log. All clones write to the same log.
#[derive(Clone, Debug)]
pub struct Log(Option<Writes>);

#[derive(Clone, Debug)]
struct Writes {
    dispatch: Dispatch,
    lines: Arc<Lines>,
}

impl Log {
    /// Makes a log on stderr.
    pub fn new(format: Format) -> Self {
        Self::of(Lines::on_stderr(format))
    }

    /// A log that writes nothing.
    pub fn silent() -> Self {
        Self(None)
    }

    /// Makes a log for a reader within this process, which gets every event as text without its time.
    pub fn to(reader: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::of(Lines::for_reader(reader))
    }

    /// Returns the same log without limits, for messages that no peer can cause.
    #[must_use]
    pub fn without_limits(&self) -> Self {
        match &self.0 {
            Some(writes) => Self::of(writes.lines.without_limits()),
            None => Self(None),
        }
    }

    /// Directs the events within to this log.
    #[doc(hidden)]
    pub fn within(&self, event: impl FnOnce()) {
        if let Some(writes) = &self.0 {
            tracing::dispatcher::with_default(&writes.dispatch, event);
        }
    }

    fn of(lines: Lines) -> Self {
        let lines = Arc::new(lines);
        Self(Some(Writes { dispatch: Dispatch::new(Collector(Arc::clone(&lines))), lines }))
    }
}

/// Logs that something is lost or cannot be served: `error!(log, directory = %path.display(), "cannot write the journal")`.
#[macro_export]
macro_rules! error {
    ($log:expr, $($event:tt)+) => { $log.within(|| $crate::log::tracing::error!($($event)+)) };
}

/// Logs that an operator should look: `warn!(log, host, reason, "agent lost")`.
#[macro_export]
macro_rules! warn {
    ($log:expr, $($event:tt)+) => { $log.within(|| $crate::log::tracing::warn!($($event)+)) };
}

/// Logs that all is well: `info!(log, host, slots, "agent joined")`.
#[macro_export]
macro_rules! info {
    ($log:expr, $($event:tt)+) => { $log.within(|| $crate::log::tracing::info!($($event)+)) };
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn read() -> (Log, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&lines);
        (Log::to(move |line| own.lock().expect("the lock is not poisoned").push(line.to_owned())), lines)
    }

    #[test]
    fn each_log_has_its_own_events() {
        let (one, two) = (read(), read());
        let (host, none) = ("node1".to_owned(), None::<u64>);
        info!(one.0, host, address = %"127.0.0.1:5000", slots = 4, none, "agent joined");
        warn!(two.0, reason = "it is late", insecure = true, "agent lost");
        error!(two.0.without_limits(), "program-cache" = -1, "no room");
        // Events outside of any log, such as those of libraries.
        tracing::error!("outside");
        info!(Log::silent(), host, "nobody reads this");
        let lines = |log: &(Log, Arc<Mutex<Vec<String>>>)| log.1.lock().expect("the lock is not poisoned").clone();
        assert_eq!(lines(&one), ["INFO agent joined host=node1 address=127.0.0.1:5000 slots=4"]);
        assert_eq!(
            lines(&two),
            ["WARN agent lost reason=\"it is late\" insecure=true", "ERROR no room program-cache=-1"]
        );
    }

    #[test]
    fn details_are_not_logged() {
        let (log, lines) = read();
        log.within(|| tracing::debug!("a detail"));
        log.within(|| drop(tracing::info_span!("a span", host = 1).entered()));
        assert!(lines.lock().expect("the lock is not poisoned").is_empty());
    }
}
