//! A process's stdout or stderr: read from a pipe and passed to a [`Sink`]. Its tail is kept for the error, should the
//! process die.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::lines::Lines;
use super::sink::Sink;

/// Bytes kept of each stream's tail.
const TAIL_BYTES: usize = 8 << 10;
/// Bytes read at once. A pipe that is ready for writing takes this much without blocking (PIPE_BUF).
const PORTION_BYTES: usize = 4096;
/// Most portions read in a row, so that one worker's flood does not delay the others. As much as a pipe holds.
const MAX_PORTIONS: usize = 16;
/// Blocked until the output of its pool is no longer held.
pub(super) const UNTIL_RELEASED: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Stream {
    pipe: Option<OwnedFd>,
    tail: VecDeque<u8>,
    /// What was read and not forwarded yet.
    pub(super) lines: Lines,
    /// Reading resumes at this time: the sink did not take what was read.
    pub(super) blocked_until: Option<u64>,
}

/// The state of a pipe after reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// More may arrive.
    Open,
    /// The sink takes nothing now: retry later. Until then the output stays in the pipe, so that only its worker waits.
    Blocked,
    /// Every process that had the write end has closed it.
    Ended,
}

impl Stream {
    /// Creates a stream and the write end of its pipe.
    pub(super) fn new() -> nix::Result<(Stream, OwnedFd)> {
        let (pipe, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let stream = Stream { pipe: Some(pipe), tail: VecDeque::new(), lines: Lines::default(), blocked_until: None };
        Ok((stream, theirs))
    }

    /// Returns the pipe, to wait on.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is available, up to a bound.
    pub(super) fn pump(&mut self, sink: &mut impl Sink) -> Pumped {
        for _ in 0..MAX_PORTIONS {
            let Some(pipe) = &self.pipe else { return Pumped::Ended };
            let room = sink.room().min(PORTION_BYTES);
            if room == 0 {
                return Pumped::Blocked;
            }
            let mut portion = [0; PORTION_BYTES];
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

    /// Returns when it needs attention that no descriptor reports.
    pub(super) fn due(&self) -> Option<u64> {
        [self.blocked_until.filter(|&at| at != UNTIL_RELEASED), self.lines.due()].into_iter().flatten().min()
    }

    /// Returns the tail of everything written, as text.
    pub(super) fn tail(&mut self) -> String {
        let bytes = self.tail.make_contiguous();
        String::from_utf8_lossy(bytes).trim_end().to_owned()
    }

    fn keep(&mut self, portion: &[u8]) {
        self.tail.extend(portion);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }
}

/// This process's own stderr. If it blocks (a stopped terminal, for example), the writers wait.
pub(super) struct OwnStderr;

impl Sink for OwnStderr {
    fn room(&mut self) -> usize {
        let stderr = std::io::stderr();
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        // An error (no stderr at all, for example) shows when writing, which then drops the output.
        if matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0)) { 0 } else { PORTION_BYTES }
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

/// Discards output; only the stream's tail is wanted.
pub(super) struct Discard;

impl Sink for Discard {
    fn room(&mut self) -> usize {
        PORTION_BYTES
    }

    fn take(&mut self, _: &[u8]) {}
}
