//! The events of the run on this thread, and its first violation.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Arguments;

use farpool_testkit::random::mix;
use tokio::time::Instant;

#[derive(Default)]
struct Trace {
    start: Option<Instant>,
    /// How many lines are kept. The digest is of all.
    max_lines: usize,
    lines: VecDeque<String>,
    events: u64,
    digest: u64,
    violation: Option<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) events: u64,
    pub(crate) digest: u64,
    pub(crate) violation: Option<String>,
    pub(crate) lines: VecDeque<String>,
}

/// Begins the trace of a run that keeps this many lines.
pub(crate) fn begin(max_lines: usize) {
    TRACE.set(Trace { start: Some(Instant::now()), max_lines, ..Trace::default() });
}

/// Ends the trace of the run.
pub(crate) fn end() -> Report {
    let Trace { events, digest, violation, lines, .. } = TRACE.take();
    Report { events, digest, violation, lines }
}

/// Records an event: `digest` distinguishes it from all others, and `line` describes it.
pub(crate) fn note(digest: u64, line: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        let at = trace.start.map_or(0, |start| start.elapsed().as_micros() as u64);
        trace.events += 1;
        trace.digest = mix(trace.digest ^ mix(digest ^ at));
        if trace.max_lines > 0 {
            if trace.lines.len() == trace.max_lines {
                trace.lines.pop_front();
            }
            trace.lines.push_back(format!("{:>12.6} {}", at as f64 / 1e6, line()));
        }
    });
}

/// Records an event that is rare enough to be formatted each time.
pub(crate) fn log(what: Arguments<'_>) {
    let line = what.to_string();
    note(of_bytes(line.as_bytes()), || line);
}

/// Records a violation. Only the first one counts.
pub(crate) fn violation(what: Arguments<'_>) {
    let what = what.to_string();
    log(format_args!("VIOLATION: {what}"));
    TRACE.with_borrow_mut(|trace| {
        trace.violation.get_or_insert(what);
    });
}

/// Returns whether there was a violation.
pub(crate) fn is_violated() -> bool {
    TRACE.with_borrow(|trace| trace.violation.is_some())
}

/// FNV-1a.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
