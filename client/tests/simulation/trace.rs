//! What has happened in the run on this thread, and whether anything of it should not have.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Arguments;

use farpool_testkit::random::mix;
use tokio::time::Instant;

#[derive(Default)]
struct Trace {
    start: Option<Instant>,
    /// So many lines are kept; of all, there is a digest.
    keeps: usize,
    lines: VecDeque<String>,
    events: u64,
    digest: u64,
    violation: Option<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) events: u64,
    pub(crate) digest: u64,
    pub(crate) violation: Option<String>,
    pub(crate) lines: VecDeque<String>,
}

/// A run begins, of which so many lines are kept.
pub(crate) fn begin(keeps: usize) {
    TRACE.set(Trace { start: Some(Instant::now()), keeps, ..Trace::default() });
}

/// The run is over.
pub(crate) fn end() -> Story {
    let Trace { events, digest, violation, lines, .. } = TRACE.take();
    Story { events, digest, violation, lines }
}

/// Something has happened: `digest` tells it from everything else that could have, and `line` tells people.
pub(crate) fn note(digest: u64, line: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        let at = trace.start.map_or(0, |start| start.elapsed().as_micros() as u64);
        trace.events += 1;
        trace.digest = mix(trace.digest ^ mix(digest ^ at));
        if trace.keeps > 0 {
            if trace.lines.len() == trace.keeps {
                trace.lines.pop_front();
            }
            trace.lines.push_back(format!("{:>12.6} {}", at as f64 / 1e6, line()));
        }
    });
}

/// The same of things that are rare enough for words.
pub(crate) fn say(what: Arguments<'_>) {
    let line = what.to_string();
    note(of_bytes(line.as_bytes()), || line);
}

/// Something must not have happened. Only the first one counts.
pub(crate) fn violation(what: Arguments<'_>) {
    let what = what.to_string();
    say(format_args!("VIOLATION: {what}"));
    TRACE.with_borrow_mut(|trace| {
        trace.violation.get_or_insert(what);
    });
}

/// Whether something has happened that must not.
pub(crate) fn is_violated() -> bool {
    TRACE.with_borrow(|trace| trace.violation.is_some())
}

/// FNV-1a.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
