//! What a command writes, until it ends.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Reads stdout and stderr of a child as they come.
#[derive(Default)]
pub(super) struct Capture {
    stdout: Stream,
    stderr: Stream,
    /// Closed when the child has ended.
    running: Option<PipeReader>,
}

#[derive(Default)]
struct Stream {
    /// `None`: at its end.
    file: Option<File>,
    bytes: Vec<u8>,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Exited,
    DeadlinePassed,
    Full,
}

impl Capture {
    /// Begins with this child, whose outputs are pipes. It will not be reaped.
    pub(super) fn start(&mut self, child: &mut Child) -> io::Result<()> {
        self.stdout.file = child.stdout.take().map(OwnedFd::from).map(into_reader).transpose()?;
        self.stderr.file = child.stderr.take().map(OwnedFd::from).map(into_reader).transpose()?;
        let (running, ended) = io::pipe()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        // The end of the outputs is not the end of the command: others may hold them open, and it may close them itself.
        thread::Builder::new().spawn(move || {
            while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
            drop(ended);
        })?;
        self.running = Some(running);
        Ok(())
    }

    /// Reads until the child has ended, there is too much, or the deadline has passed.
    pub(super) fn run(&mut self, deadline: Option<Instant>, most: usize) -> io::Result<Event> {
        loop {
            let Some(running) = &self.running else { return Ok(Event::Exited) };
            let mut ready = vec![PollFd::new(running.as_fd(), PollFlags::POLLIN)];
            let open = [&self.stdout, &self.stderr].into_iter().filter_map(|stream| stream.file.as_ref());
            ready.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
            match poll(&mut ready, patience(deadline)) {
                Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Ok(Event::DeadlinePassed);
                }
                Ok(0) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if ready[0].revents().is_some_and(|events| !events.is_empty()) {
                self.running = None;
                return Ok(Event::Exited);
            }
            self.drain(most)?;
            if self.stdout.bytes.len() + self.stderr.bytes.len() >= most {
                return Ok(Event::Full);
            }
            // A command that never stops writing has its deadline too.
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Event::DeadlinePassed);
            }
        }
    }

    /// Reads what is there, without waiting.
    pub(super) fn drain(&mut self, most: usize) -> io::Result<()> {
        self.stdout.drain(most.saturating_sub(self.stderr.bytes.len()))?;
        self.stderr.drain(most.saturating_sub(self.stdout.bytes.len()))
    }

    /// What was written to stdout and to stderr.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.bytes, self.stderr.bytes)
    }
}

impl Stream {
    fn drain(&mut self, most: usize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        // A pipe holds 64 KiB: one round takes what there is, and lets the other stream have its turn.
        let room = most.saturating_sub(self.bytes.len()).min(1 << 20);
        let before = self.bytes.len();
        match file.take(room as u64).read_to_end(&mut self.bytes) {
            Ok(_) if room > 0 && self.bytes.len() - before < room => self.file = None,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn into_reader(pipe: OwnedFd) -> io::Result<File> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(pipe))
}

fn patience(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up: there is no sense in waking before it has passed. What is too long for one wait takes several.
    PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
}
