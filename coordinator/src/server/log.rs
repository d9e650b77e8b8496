//! What operators read: one line an event on stderr.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farpool_proto::text::Printable;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Lines a second, over which peers that knock too often are not let.
const LINES: u32 = 20;

/// Writes lines, not more than so many a second, and never waits for whoever reads them.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// None: it writes nothing.
    state: Option<Arc<Mutex<Second>>>,
}

#[derive(Debug, Default)]
struct Second {
    begun: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Log {
    pub(super) fn new(writes: bool) -> Self {
        Self { state: writes.then(Arc::default) }
    }

    pub(super) fn line(&self, text: impl fmt::Display) {
        let Some(state) = &self.state else { return };
        let mut second = state.lock().unwrap_or_else(PoisonError::into_inner);
        if second.admits(Instant::now()) {
            let left_out = std::mem::take(&mut second.left_out);
            drop(second);
            if left_out > 0 {
                write(&format!("{left_out} lines were left out"));
            }
            write(&text);
        }
    }
}

impl Second {
    fn admits(&mut self, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= Duration::from_secs(1)) {
            (self.begun, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        let admits = self.lines <= LINES;
        self.left_out += u64::from(!admits);
        admits
    }
}

/// A pipe that nobody reads must not stop the coordinator: a line that has no room is lost.
fn write(text: &dyn fmt::Display) {
    let text: String = Printable(&text.to_string()).to_string().chars().take(1000).collect();
    let stderr = io::stderr();
    let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut room, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    if ready && room[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
        let _ = stderr.lock().write_all(format!("farpool-coordinator: {text}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let mut second = Second::default();
        let start = Instant::now();
        let admitted = (0..100).filter(|_| second.admits(start)).count();
        assert_eq!((admitted, second.left_out), (LINES as usize, 100 - u64::from(LINES)));
        assert!(second.admits(start + Duration::from_secs(1)));
    }
}
