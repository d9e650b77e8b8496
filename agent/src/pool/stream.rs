//! What a process writes to its stdout or stderr: read from a pipe, handed to a [`Sink`], and its end kept for the error,
//! should the process die.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::lines::Lines;
use super::sink::Sink;

/// Bytes kept of each stream's end.
const KEPT: usize = 8 << 10;
/// Bytes read at once. A pipe that is ready for writing takes this much without blocking (PIPE_BUF).
const PORTION: usize = 4096;
/// Portions read in a row, so that one worker's flood does not hold up the others. As much as a pipe holds.
const PORTIONS: usize = 16;

#[derive(Debug)]
pub(super) struct Stream {
    pipe: Option<OwnedFd>,
    end: VecDeque<u8>,
    /// What was read and not told yet.
    pub(super) lines: Lines,
    /// It is not listened to before this time: what was read could not be passed on.
    pub(super) blocked_until: Option<u64>,
}

/// How a pipe was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// More may come.
    Open,
    /// The sink takes nothing now: try again later. Until then the worker's output stays in its pipe, so that the worker
    /// waits and nobody else does.
    Blocked,
    /// The worker, and whoever else had its end of the pipe, has ended.
    Ended,
}

impl Stream {
    /// A stream, and the end to write to.
    pub(super) fn new() -> nix::Result<(Stream, OwnedFd)> {
        let (pipe, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let stream = Stream { pipe: Some(pipe), end: VecDeque::new(), lines: Lines::default(), blocked_until: None };
        Ok((stream, theirs))
    }

    /// The pipe, to wait on.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes out what is there, but not more than a bounded amount.
    pub(super) fn pump(&mut self, sink: &mut impl Sink) -> Pumped {
        for _ in 0..PORTIONS {
            let Some(pipe) = &self.pipe else { return Pumped::Ended };
            let room = sink.room().min(PORTION);
            if room == 0 {
                return Pumped::Blocked;
            }
            let mut portion = [0; PORTION];
            match nix::unistd::read(pipe, &mut portion[..room]) {
                Ok(0) => {
                    self.pipe = None;
                    return Pumped::Ended;
                }
                Ok(length) => {
                    self.keep(&portion[..length]);
                    sink.take(&portion[..length]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Pumped::Open,
                Err(_) => {
                    self.pipe = None;
                    return Pumped::Ended;
                }
            }
        }
        Pumped::Open
    }

    /// The end of all that was written, as text.
    pub(super) fn end(&mut self) -> String {
        let bytes = self.end.make_contiguous();
        String::from_utf8_lossy(bytes).trim_end().to_owned()
    }

    fn keep(&mut self, portion: &[u8]) {
        self.end.extend(portion);
        let surplus = self.end.len().saturating_sub(KEPT);
        self.end.drain(..surplus);
    }
}

/// This process's own stderr. If it takes nothing (a terminal that was stopped, say), whoever writes to it waits.
pub(super) struct OwnStderr;

impl Sink for OwnStderr {
    fn room(&mut self) -> usize {
        let stderr = std::io::stderr();
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        // An error (no stderr at all, say) shows when writing, which then drops the output.
        if matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0)) { 0 } else { PORTION }
    }

    fn take(&mut self, mut portion: &[u8]) {
        let stderr = std::io::stderr();
        while !portion.is_empty() {
            match nix::unistd::write(&stderr, portion) {
                Ok(written) => portion = &portion[written..],
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Nothing but the end of it is wanted.
pub(super) struct Nowhere;

impl Sink for Nowhere {
    fn room(&mut self) -> usize {
        PORTION
    }

    fn take(&mut self, _: &[u8]) {}
}
