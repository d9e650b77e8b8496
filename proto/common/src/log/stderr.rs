//! Writes to stderr without ever waiting for a reader.

use std::io::Write;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes a line, unless stderr is full or closed.
pub(super) fn write(line: &str) {
    let stderr = std::io::stderr();
    let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let ready = poll(&mut room, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    if ready && room[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
        // An error means that stderr has no reader.
        let _ = stderr.lock().write_all(format!("{line}\n").as_bytes());
    }
}
