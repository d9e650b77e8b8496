//! What has happened in the run on this thread, and whether anything of it should not have.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Arguments;

use tokio::time::Instant;

use crate::random::mix;

/// So many lines are shown of a run that failed.
const SHOWN: usize = 100;

#[derive(Default)]
struct Trace {
    start: Option<Instant>,
    /// Lines are kept; without that only their digest is.
    keeps: bool,
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
pub struct Story {
    pub events: u64,
    pub digest: u64,
    pub violation: Option<String>,
    pub lines: VecDeque<String>,
}

/// A run begins.
pub fn begin(keeps: bool) {
    TRACE.set(Trace { start: Some(Instant::now()), keeps, ..Trace::default() });
}

/// The run is over.
pub fn end() -> Story {
    let Trace { events, digest, violation, lines, .. } = TRACE.take();
    Story { events, digest, violation, lines }
}

/// Something has happened: `digest` tells it from everything else that could have, and `line` tells people.
pub fn note(digest: u64, line: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        let at = trace.start.map_or(0, |start| start.elapsed().as_micros() as u64);
        trace.events += 1;
        trace.digest = mix(trace.digest ^ mix(digest ^ at));
        if trace.keeps {
            if trace.lines.len() == SHOWN {
                trace.lines.pop_front();
            }
            trace.lines.push_back(format!("{:>12.6} {}", at as f64 / 1e6, line()));
        }
    });
}

/// The same of things that are rare enough for words.
pub fn say(what: Arguments<'_>) {
    let line = what.to_string();
    note(of_bytes(line.as_bytes()), || line);
}

/// Something must not have happened. Only the first one counts.
pub fn violation(what: Arguments<'_>) {
    let what = what.to_string();
    say(format_args!("VIOLATION: {what}"));
    TRACE.with_borrow_mut(|trace| {
        trace.violation.get_or_insert(what);
    });
}

/// Whether something has happened that must not.
pub fn is_violated() -> bool {
    TRACE.with_borrow(|trace| trace.violation.is_some())
}

/// FNV-1a.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
