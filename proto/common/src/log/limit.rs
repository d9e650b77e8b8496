//! Limits repeated lines and floods: repetitions are counted, and floods are cut off.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::Level;

use super::format::Format;
use super::line::{Line, Value};

/// The most lines per second.
const LINES: u32 = 20;

/// How long repetitions of a line are only counted, at first and at most.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(64);

/// The most lines that are remembered.
const REMEMBERED: usize = 256;

/// The lines that were written recently.
#[derive(Debug, Default)]
pub(super) struct Limit {
    /// When the current second began, and its number of lines.
    second: Option<Instant>,
    lines: u32,
    left_out: u64,
    causes: Vec<Cause>,
    has_clock: bool,
}

/// A line that was written.
#[derive(Debug)]
struct Cause {
    line: String,
    window: Duration,
    until: Instant,
    /// How often it was repeated since, and the last repetition.
    count: u64,
    last: Option<Line>,
}

impl Limit {
    /// Returns the lines to write: this one, after a note on how many were left out before it; or none.
    pub(super) fn admit(&mut self, line: Line, now: Instant) -> Vec<Line> {
        let cause = cause(&line);
        if let Some(known) = self.causes.iter_mut().find(|known| known.line == cause) {
            known.count += 1;
            known.last = Some(line);
            return Vec::new();
        }
        if self.second.is_none_or(|begun| now.duration_since(begun) >= Duration::from_secs(1)) {
            (self.second, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES {
            self.left_out += 1;
            return Vec::new();
        }
        self.lines += 1;
        if self.causes.len() == REMEMBERED {
            // Lines that were not repeated need no count.
            self.causes.retain(|cause| cause.count > 0);
        }
        if self.causes.len() < REMEMBERED {
            let (window, until) = (FIRST_WINDOW, now + FIRST_WINDOW);
            self.causes.push(Cause { line: cause, window, until, count: 0, last: None });
        }
        let left_out = std::mem::take(&mut self.left_out);
        (left_out > 0).then(|| note(left_out)).into_iter().chain([line]).collect()
    }

    /// Returns counted lines whose window is over.
    pub(super) fn repeated(&mut self, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        self.causes.retain_mut(|cause| {
            if now < cause.until {
                return true;
            }
            let count = std::mem::take(&mut cause.count);
            if let Some(last) = cause.last.take() {
                let window = format!("{}s", cause.window.as_secs());
                let last = last.with("repeated", Value::Bare(count.to_string()));
                lines.push(last.with("within", Value::Text(window)));
            }
            cause.window = (2 * cause.window).min(LONGEST_WINDOW);
            cause.until = now + cause.window;
            count > 0
        });
        lines
    }

    /// Whether there are counts to write later, and no clock runs that writes them.
    pub(super) fn needs_clock(&mut self) -> bool {
        let wants = !self.has_clock && self.causes.iter().any(|cause| cause.count > 0);
        self.has_clock |= wants;
        wants
    }

    /// The clock could not be started.
    pub(super) fn clock_failed(&mut self) {
        self.has_clock = false;
    }

    /// Returns when to write the next count; `None`: the clock stops.
    pub(super) fn due(&mut self) -> Option<Instant> {
        let due = self.causes.iter().filter(|cause| cause.count > 0).map(|cause| cause.until).min();
        self.has_clock = due.is_some();
        due
    }
}

fn note(left_out: u64) -> Line {
    Line::new(Level::WARN, "lines were left out".to_owned()).with("count", Value::Bare(left_out.to_string()))
}

/// Returns what a line has in common with others of the same cause: everything but the ports of addresses, since each
/// connection of a peer has another one.
fn cause(line: &Line) -> String {
    let mut line = line.clone();
    line.message = without_ports(&line.message);
    for (_, value) in &mut line.fields {
        if let Value::Text(text) = value {
            *text = without_ports(text);
        }
    }
    Format::Text.write(None, &line)
}

fn without_ports(text: &str) -> String {
    let word = |word: &str| {
        let address = word.trim_matches(|c: char| !c.is_ascii_hexdigit() && c != '[');
        match address.parse::<SocketAddr>() {
            Ok(parsed) => word.replace(address, &parsed.ip().to_string()),
            Err(_) => word.to_owned(),
        }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        Line::new(Level::INFO, message.to_owned())
    }

    fn refused(port: u32) -> Line {
        let address = Value::Text(format!("10.0.0.1:{port}"));
        line("refused a client").with("address", address).with("reason", Value::Text("wrong version".to_owned()))
    }

    #[test]
    fn one_cause_is_one_line_and_a_count() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let mut written = Vec::new();
        for at in 0..100u32 {
            let now = start + Duration::from_millis(100 * u64::from(at));
            written.extend(limit.repeated(now));
            written.extend(limit.admit(refused(40_000 + at), now));
        }
        let counted = |port: u32, count: u32, within: &str| {
            let line = refused(port).with("repeated", Value::Bare(count.to_string()));
            line.with("within", Value::Text(within.to_owned()))
        };
        let counts = [counted(40_009, 9, "1s"), counted(40_029, 20, "2s"), counted(40_069, 40, "4s")];
        assert_eq!(written, [&[refused(40_000)][..], &counts].concat());
        let over = start + Duration::from_secs(15);
        assert_eq!(limit.repeated(over), [counted(40_099, 30, "8s")]);
        // If it does not recur it is forgotten, and the next one is written at once.
        let later = over + LONGEST_WINDOW;
        assert_eq!((limit.repeated(later), limit.causes.len()), (vec![], 0));
        assert_eq!(limit.admit(refused(1), later), [refused(1)]);
    }

    #[test]
    fn a_count_reads_as_a_field() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        limit.admit(refused(1), start);
        limit.admit(refused(2), start);
        let line = limit.repeated(start + FIRST_WINDOW).pop().expect("the line is counted");
        let text = "INFO refused a client address=10.0.0.1:2 reason=\"wrong version\" repeated=1 within=1s";
        assert_eq!(Format::Text.write(None, &line), text);
    }

    #[test]
    fn other_levels_and_values_are_other_causes() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        let lost =
            |level, host: &str| Line::new(level, "agent lost".to_owned()).with("host", Value::Text(host.to_owned()));
        for other in [lost(Level::INFO, "a"), lost(Level::WARN, "a"), lost(Level::INFO, "b")] {
            assert_eq!(limit.admit(other.clone(), now), [other]);
        }
        assert!(limit.admit(lost(Level::WARN, "a"), now).is_empty());
    }

    #[test]
    fn rare_lines_are_written_each_time() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for at in 0..10u64 {
            let now = start + Duration::from_secs(2 * at);
            assert_eq!(limit.repeated(now), []);
            assert_eq!(limit.admit(line("connected again"), now), [line("connected again")]);
        }
    }

    #[test]
    fn a_flood_of_different_lines_is_cut_off_and_counted() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let lines = (0..100).map(|at| line(&format!("job {at} has finished")));
        let admitted = lines.filter(|line| !limit.admit(line.clone(), start).is_empty()).count();
        assert_eq!((admitted, limit.left_out), (LINES as usize, 100 - u64::from(LINES)));
        let next = limit.admit(line("another"), start + Duration::from_secs(1));
        assert_eq!(next, [note(80), line("another")]);
    }

    #[test]
    fn the_number_of_remembered_lines_is_bounded() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for at in 0..10_000u32 {
            limit.admit(line(&format!("line {at}")), start + Duration::from_millis(u64::from(at)));
        }
        assert!(limit.causes.len() <= REMEMBERED);
    }

    #[test]
    fn only_ports_do_not_count() {
        assert_eq!(
            without_ports("agent node1 joined from 10.0.0.1:4242: 8 slots"),
            "agent node1 joined from 10.0.0.1: 8 slots"
        );
        assert_eq!(without_ports("a client from [::1]:4242, which"), "a client from ::1, which");
        assert_eq!(without_ports("job \"12:34\" has 5 items"), "job \"12:34\" has 5 items");
    }
}
