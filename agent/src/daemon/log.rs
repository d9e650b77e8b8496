//! What is said on stderr.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;

use farpool_proto::text::Printable;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The longest line. A pipe that is ready takes it without blocking (PIPE_BUF), whatever characters are in it.
const CHARACTERS: usize = 900;

/// Says something. Nobody may be listening: what a full pipe has no room for is lost.
pub(super) fn log(text: impl Display) {
    let text: String = Printable(&text.to_string()).to_string().chars().take(CHARACTERS).collect();
    let stderr = std::io::stderr();
    let mut room = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut room, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        // An error means that nobody will ever listen.
        let _ = stderr.lock().write_all(format!("farpool-agent: {text}\n").as_bytes());
    }
}
