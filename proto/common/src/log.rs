//! What a daemon's operators read: one line an event on stderr.
//!
//! Whoever writes a line never waits for whoever reads them. The same line again within a second is only counted, and told
//! once with the count when that time is over; if it goes on, each window is twice as long as the one before, up to 64 s.
//! The port that a peer has makes no difference. All in all there are no more than 20 a second.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farpool_proto::text::Printable;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lines a second.
const LINES: u32 = 20;

/// How long the same line is only counted, at first and at most.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
const LONGEST_WINDOW: Duration = Duration::from_secs(64);

/// Lines that are remembered.
const REMEMBERED: usize = 256;

/// The longest line. A pipe that is ready takes it without blocking (PIPE_BUF), whatever characters are in it.
const CHARACTERS: usize = 900;

/// Where a daemon writes its lines. All clones write the same log.
#[derive(Clone, Debug)]
pub struct Log {
    program: &'static str,
    /// None: it writes nothing.
    limit: Option<Arc<Mutex<Limit>>>,
}

impl Log {
    /// A log whose lines begin with a program's name.
    pub fn new(program: &'static str) -> Self {
        Self { program, limit: Some(Arc::default()) }
    }

    /// A log that writes nothing.
    pub fn silent() -> Self {
        Self { program: "", limit: None }
    }

    /// Writes a line, or counts it.
    pub fn line(&self, text: impl Display) {
        let Some(limit) = &self.limit else { return };
        let (lines, starts) = {
            let mut limit = lock(limit);
            let now = Instant::now();
            let mut lines = limit.repeated(now);
            lines.extend(limit.admits(&clean(text), now));
            (lines, limit.wants_clock())
        };
        self.write(&lines);
        if starts {
            self.start_clock(limit);
        }
    }

    /// Writes a line in any case: one of those that a daemon has to say before anybody can make it say more.
    pub fn always(&self, text: impl Display) {
        if self.limit.is_some() {
            self.write(&[clean(text)]);
        }
    }

    /// Has what is counted told when its time is over, though no other line comes.
    fn start_clock(&self, limit: &Arc<Mutex<Limit>>) {
        let (log, own) = (self.clone(), Arc::clone(limit));
        let clock = move || {
            loop {
                let Some(due) = lock(&own).due() else { return };
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let lines = lock(&own).repeated(Instant::now());
                log.write(&lines);
            }
        };
        if thread::Builder::new().name("farpool-log".to_owned()).spawn(clock).is_err() {
            // It is told with the next line.
            lock(limit).has_clock = false;
        }
    }

    fn write(&self, lines: &[String]) {
        let stderr = std::io::stderr();
        for line in lines {
            let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            let ready = poll(&mut room, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
            if ready && room[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
                // An error means that nobody will ever read it.
                let _ = stderr.lock().write_all(format!("{}: {line}\n", self.program).as_bytes());
            }
        }
    }
}

/// Peers' words may have line ends and control characters in them.
fn clean(text: impl Display) -> String {
    Printable(&text.to_string()).to_string().chars().take(CHARACTERS).collect()
}

fn lock(limit: &Mutex<Limit>) -> MutexGuard<'_, Limit> {
    limit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was written lately.
#[derive(Debug, Default)]
struct Limit {
    /// When this second began, and how many lines it has.
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
    /// How often it came since, and as what the last time.
    count: u64,
    last: String,
}

impl Limit {
    /// What is to be written if this line comes: at most it and how many were left out before.
    fn admits(&mut self, line: &str, now: Instant) -> Vec<String> {
        let cause = without_ports(line);
        if let Some(known) = self.causes.iter_mut().find(|known| known.line == cause) {
            known.count += 1;
            line.clone_into(&mut known.last);
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
            // Those that were not repeated say nothing more.
            self.causes.retain(|cause| cause.count > 0);
        }
        if self.causes.len() < REMEMBERED {
            let (window, until) = (FIRST_WINDOW, now + FIRST_WINDOW);
            self.causes.push(Cause { line: cause, window, until, count: 0, last: String::new() });
        }
        let left_out = std::mem::take(&mut self.left_out);
        let note = (left_out > 0).then(|| format!("{left_out} lines were left out"));
        note.into_iter().chain([line.to_owned()]).collect()
    }

    /// What was counted and whose time is over.
    fn repeated(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        self.causes.retain_mut(|cause| {
            if now < cause.until {
                return true;
            }
            let count = std::mem::take(&mut cause.count);
            if count > 0 {
                let times = if count == 1 { "once more".to_owned() } else { format!("{count} times more") };
                lines.push(format!("{} ({times} in {}s)", cause.last, cause.window.as_secs()));
            }
            cause.window = (2 * cause.window).min(LONGEST_WINDOW);
            cause.until = now + cause.window;
            count > 0
        });
        lines
    }

    /// Whether there is something to be told later and nobody who will.
    fn wants_clock(&mut self) -> bool {
        let wants = !self.has_clock && self.causes.iter().any(|cause| cause.count > 0);
        self.has_clock |= wants;
        wants
    }

    /// When something is to be told next; none: the clock stops.
    fn due(&mut self) -> Option<Instant> {
        let due = self.causes.iter().filter(|cause| cause.count > 0).map(|cause| cause.until).min();
        self.has_clock = due.is_some();
        due
    }
}

/// A line without the ports of addresses: each connection of a peer has another one.
fn without_ports(line: &str) -> String {
    let word = |word: &str| {
        let address = word.trim_matches(|c: char| !c.is_ascii_hexdigit() && c != '[');
        match address.parse::<SocketAddr>() {
            Ok(parsed) => word.replace(address, &parsed.ip().to_string()),
            Err(_) => word.to_owned(),
        }
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_one_line_and_a_count() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let mut written = Vec::new();
        for at in 0..100u32 {
            let now = start + Duration::from_millis(100 * u64::from(at));
            written.extend(limit.repeated(now));
            written.extend(limit.admits(&format!("refused a client 10.0.0.1:{}: wrong version", 40_000 + at), now));
        }
        let line = |port: u32, times: &str| format!("refused a client 10.0.0.1:{port}: wrong version{times}");
        let counted = [line(40_009, " (9 times more in 1s)"), line(40_029, " (20 times more in 2s)")];
        let expected =
            [vec![line(40_000, "")], counted.to_vec(), vec![line(40_069, " (40 times more in 4s)")]].concat();
        assert_eq!(written, expected);
        let over = start + Duration::from_secs(15);
        assert_eq!(limit.repeated(over), [line(40_099, " (30 times more in 8s)")]);
        // When it does not come again it is forgotten, and what comes later is written at once.
        let later = over + LONGEST_WINDOW;
        assert_eq!((limit.repeated(later), limit.causes.len()), (vec![], 0));
        assert_eq!(limit.admits(&line(1, ""), later), [line(1, "")]);
    }

    #[test]
    fn what_comes_now_and_then_is_written_each_time() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for at in 0..10u64 {
            let now = start + Duration::from_secs(2 * at);
            assert_eq!(limit.repeated(now), [""; 0]);
            assert_eq!(limit.admits("connected again", now), ["connected again"]);
        }
    }

    #[test]
    fn a_flood_of_different_lines_is_cut_off_and_counted() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let admitted = (0..100).filter(|at| !limit.admits(&format!("job {at} has finished"), start).is_empty()).count();
        assert_eq!((admitted, limit.left_out), (LINES as usize, 100 - u64::from(LINES)));
        let next = limit.admits("another", start + Duration::from_secs(1));
        assert_eq!(next, ["80 lines were left out", "another"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for at in 0..10_000u32 {
            limit.admits(&format!("line {at}"), start + Duration::from_millis(u64::from(at)));
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
