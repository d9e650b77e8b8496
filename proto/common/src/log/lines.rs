//! The lines of one log: which of them are written, and where.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::format::Format;
use super::limit::Limit;
use super::line::Line;
use super::stderr;
use crate::time::Utc;

/// The state of a log.
pub(super) struct Lines {
    reader: Reader,
    /// `None`: all are written.
    limit: Option<Mutex<Limit>>,
}

/// The receiver of the lines.
#[derive(Clone)]
enum Reader {
    Stderr(Format),
    Within(Arc<dyn Fn(&str) + Send + Sync>),
}

impl Lines {
    pub(super) fn on_stderr(format: Format) -> Self {
        Self { reader: Reader::Stderr(format), limit: Some(Mutex::default()) }
    }

    pub(super) fn for_reader(reader: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { reader: Reader::Within(Arc::new(reader)), limit: None }
    }

    pub(super) fn without_limits(&self) -> Self {
        Self { reader: self.reader.clone(), limit: None }
    }

    /// Writes a line, or counts it.
    pub(super) fn take(this: &Arc<Self>, line: Line) {
        let Some(limit) = &this.limit else { return this.write(&[line]) };
        let (lines, starts) = {
            let mut limit = lock(limit);
            let now = Instant::now();
            let mut lines = limit.repeated(now);
            lines.extend(limit.admit(line, now));
            (lines, limit.needs_clock())
        };
        this.write(&lines);
        if starts {
            Self::start_clock(this);
        }
    }

    /// Starts a thread that writes counts when their window is over, even if no other line arrives.
    fn start_clock(this: &Arc<Self>) {
        let own = Arc::clone(this);
        let clock = move || {
            let Some(limit) = &own.limit else { return };
            loop {
                let Some(due) = lock(limit).due() else { return };
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let lines = lock(limit).repeated(Instant::now());
                own.write(&lines);
            }
        };
        let started = thread::Builder::new().name("farpool-log".to_owned()).spawn(clock);
        if let (Err(_), Some(limit)) = (started, &this.limit) {
            // The counts are written with the next line.
            lock(limit).clock_failed();
        }
    }

    fn write(&self, lines: &[Line]) {
        for line in lines {
            match &self.reader {
                Reader::Stderr(format) => stderr::write(&format.write(Some(Utc::now()), line)),
                Reader::Within(reader) => reader(&Format::Text.write(None, line)),
            }
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

fn lock(limit: &Mutex<Limit>) -> MutexGuard<'_, Limit> {
    limit.lock().unwrap_or_else(PoisonError::into_inner)
}
