//! What a daemon's operators read: one line an event on stderr, as text or as JSON.
//!
//! An event has a level, a message that never varies, and fields:
//! `info!(log, host, slots, "agent joined")`. The macros [`error!`], [`warn!`] and [`info!`] take what those of `tracing` take,
//! behind the log. **Error**: something is lost, or cannot be served. **Warn**: somebody should look. **Info**: all is well.
//!
//! Each log has a dispatcher of its own, so that several servers in one process write several logs; what libraries have to
//! say is left out. Whoever writes a line never waits for whoever reads them. The same line again within a second is only
//! counted, and told once with the count when that time is over; if it goes on, each window is twice as long as the one
//! before, up to 64 s. The port that a peer has makes no difference. All in all there are no more than 20 a second.

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

/// Where a daemon writes its lines. All clones write the same log.
#[derive(Clone, Debug)]
pub struct Log(Option<Writes>);

#[derive(Clone, Debug)]
struct Writes {
    dispatch: Dispatch,
    lines: Arc<Lines>,
}

impl Log {
    /// A log on stderr.
    pub fn new(format: Format) -> Self {
        Self::of(Lines::on_stderr(format))
    }

    /// A log that writes nothing.
    pub fn silent() -> Self {
        Self(None)
    }

    /// A log for somebody within this process, who gets every event as text, without its time.
    pub fn to(reader: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self::of(Lines::for_reader(reader))
    }

    /// The same log without limits, for what a daemon has to say before anybody can make it say more.
    #[must_use]
    pub fn without_limits(&self) -> Self {
        match &self.0 {
            Some(writes) => Self::of(writes.lines.without_limits()),
            None => Self(None),
        }
    }

    /// Has the events within go here.
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

/// Logs that somebody should look: `warn!(log, host, reason, "agent lost")`.
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
        (Log::to(move |line| own.lock().expect("nobody panics with it").push(line.to_owned())), lines)
    }

    #[test]
    fn each_log_has_its_own_events() {
        let (one, two) = (read(), read());
        let (host, none) = ("node1".to_owned(), None::<u64>);
        info!(one.0, host, address = %"127.0.0.1:5000", slots = 4, none, "agent joined");
        warn!(two.0, reason = "it is late", insecure = true, "agent lost");
        error!(two.0.without_limits(), "program-cache" = -1, "no room");
        // What belongs to no log, as what libraries have to say.
        tracing::error!("outside");
        info!(Log::silent(), host, "nobody reads this");
        let lines = |log: &(Log, Arc<Mutex<Vec<String>>>)| log.1.lock().expect("nobody panics with it").clone();
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
        assert!(lines.lock().expect("nobody panics with it").is_empty());
    }
}
