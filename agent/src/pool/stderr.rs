//! What a worker writes to stderr: passed on to this process's stderr, and its end kept for the error, should it die.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes kept of each worker's stderr.
const KEPT: usize = 8 << 10;
/// Bytes read at once. A pipe that is ready for writing takes this much without blocking (PIPE_BUF).
const PORTION: usize = 4096;

#[derive(Debug)]
pub(super) struct Stderr {
    pipe: Option<OwnedFd>,
    end: VecDeque<u8>,
}

impl Stderr {
    pub(super) fn new(pipe: OwnedFd) -> Stderr {
        Stderr { pipe: Some(pipe), end: VecDeque::new() }
    }

    /// The pipe, to wait on.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes out what is there, but not more than a bounded amount, so that one worker's flood does not hold up the
    /// others.
    pub(super) fn pump(&mut self) -> Pumped {
        for _ in 0..16 {
            let Some(pipe) = &self.pipe else { return Pumped::Ended };
            if !can_pass_on() {
                return Pumped::Blocked;
            }
            let mut portion = [0; PORTION];
            match nix::unistd::read(pipe, &mut portion) {
                Ok(0) => {
                    self.pipe = None;
                    return Pumped::Ended;
                }
                Ok(length) => self.take(&portion[..length]),
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

    fn take(&mut self, portion: &[u8]) {
        self.end.extend(portion);
        let surplus = self.end.len().saturating_sub(KEPT);
        self.end.drain(..surplus);
        pass_on(portion);
    }
}

/// How a pipe was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// More may come.
    Open,
    /// This process's stderr takes nothing now (a terminal that was stopped, say): try again later. Until then the
    /// worker's output stays in its pipe, so that the worker waits and nobody else does.
    Blocked,
    /// The worker, and whoever else had its stderr, has ended.
    Ended,
}

/// Whether a portion can be written to this process's stderr without blocking.
fn can_pass_on() -> bool {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    // An error (no stderr at all, say) shows when writing, which then drops the output.
    !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0))
}

fn pass_on(mut portion: &[u8]) {
    let stderr = std::io::stderr();
    while !portion.is_empty() {
        match nix::unistd::write(&stderr, portion) {
            Ok(written) => portion = &portion[written..],
            Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
