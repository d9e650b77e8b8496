//! Captures what a command writes until it ends.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::group::Group;
use super::keep::{LinePrinter, Output, OutputMode, OutputWriter};

/// Reads stdout and stderr of a command as they arrive.
pub(super) struct Capture {
    pub(super) group: Group,
    stdout: Stream,
    stderr: Stream,
    /// Yields a byte when the command has exited, and ends when its group is empty.
    exit_pipe: Option<PipeReader>,
    exited: bool,
    /// The spool file for outputs that are too large for memory.
    spool: Option<PathBuf>,
}

struct Stream {
    /// `None`: it has ended.
    file: Option<File>,
    writer: OutputWriter,
}

/// The condition at which reading stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The command has exited.
    Exited,
    /// Everything in its process group has exited, too.
    GroupEmpty,
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Event {
    /// The condition was reached.
    Reached,
    DeadlinePassed,
    /// The output is too large for memory, and there is no spool file.
    Full,
    /// The output could not be kept.
    NotKept(io::Error),
}

/// Outputs from this size on are spooled, if possible.
const SPOOL_FROM_BYTES: usize = 1 << 20;
/// Most bytes of an output without a spool file: a little less than a pool's largest result.
const MAX_HELD: usize = (1 << 30) - (1 << 20);

impl Capture {
    /// Starts capturing this child, whose outputs are pipes, and which leads a process group.
    pub(super) fn start(mut child: Child, output_mode: &OutputMode) -> io::Result<Capture> {
        let (stdout, stderr, spool) = match output_mode {
            OutputMode::InMemory => (OutputWriter::Held(Vec::new()), OutputWriter::Held(Vec::new()), None),
            OutputMode::Spooled(path) => {
                (OutputWriter::Held(Vec::new()), OutputWriter::Held(Vec::new()), Some(path.clone()))
            }
            OutputMode::Lines { tag, lock } => {
                let (tag, lock) = (tag.as_deref(), lock.as_deref());
                let (out, err) =
                    (LinePrinter::new(io::stdout(), tag, lock)?, LinePrinter::new(io::stderr(), tag, lock)?);
                (OutputWriter::Lines(out), OutputWriter::Lines(err), None)
            }
        };
        let stdout =
            Stream { file: child.stdout.take().map(OwnedFd::from).map(into_reader).transpose()?, writer: stdout };
        let stderr =
            Stream { file: child.stderr.take().map(OwnedFd::from).map(into_reader).transpose()?, writer: stderr };
        let (group, exit_pipe) = Group::of(child)?;
        Ok(Capture { group, stdout, stderr, exit_pipe: Some(exit_pipe), exited: false, spool })
    }

    /// Reads until the condition is reached, there is too much output, or the deadline has passed.
    pub(super) fn run(&mut self, until: Until, deadline: Option<Instant>) -> io::Result<Event> {
        loop {
            let Some(exit_pipe) = self.exit_pipe.as_ref().filter(|_| until == Until::GroupEmpty || !self.exited) else {
                return Ok(Event::Reached);
            };
            let mut ready = vec![PollFd::new(exit_pipe.as_fd(), PollFlags::POLLIN)];
            let open = [&self.stdout, &self.stderr].into_iter().filter_map(|stream| stream.file.as_ref());
            ready.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
            match poll(&mut ready, poll_timeout(deadline)) {
                Ok(0) if has_passed(deadline) => return Ok(Event::DeadlinePassed),
                Ok(0) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if ready[0].revents().is_some_and(|events| !events.is_empty()) {
                self.read_exit_pipe()?;
                continue;
            }
            if let Err(error) = self.read_once() {
                return Ok(Event::NotKept(error));
            }
            if self.held() >= MAX_HELD {
                return Ok(Event::Full);
            }
            // The deadline also applies to a command that never stops writing.
            if has_passed(deadline) {
                return Ok(Event::DeadlinePassed);
            }
        }
    }

    /// Reads the remaining output without waiting. Returns how the command ended, and what it wrote. All processes in
    /// its group must have exited or be about to.
    pub(super) fn end(mut self) -> (io::Result<ExitStatus>, io::Result<[Output; 2]>) {
        let status = self.group.join();
        // Processes that left the group may write forever.
        let drained = self.stdout.drain().and_then(|()| self.stderr.drain());
        let outputs = drained.and_then(|()| Ok([self.stdout.writer.end()?, self.stderr.writer.end()?]));
        (status, outputs)
    }

    fn held(&self) -> usize {
        self.stdout.writer.held() + self.stderr.writer.held()
    }

    fn read_exit_pipe(&mut self) -> io::Result<()> {
        let Some(exit_pipe) = &mut self.exit_pipe else { return Ok(()) };
        match exit_pipe.read(&mut [0])? {
            0 => self.exit_pipe = None,
            _ => self.exited = true,
        }
        self.exited |= self.exit_pipe.is_none();
        Ok(())
    }

    fn read_once(&mut self) -> io::Result<()> {
        self.stdout.read()?;
        self.stderr.read()?;
        if let Some(path) = &self.spool
            && self.held() >= SPOOL_FROM_BYTES
        {
            for stream in [&mut self.stdout, &mut self.stderr] {
                stream.writer.spool(path)?;
                if let Some(pipe) = &stream.file {
                    // A larger pipe moves more at once. An error means that the user has too many pipes, which is fine.
                    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(1 << 20));
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    /// Reads once. Returns whether there may be more.
    fn read(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        match self.writer.take_from(file) {
            Ok(0) => self.file = None,
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Reads no more than a pipe can hold.
    fn drain(&mut self) -> io::Result<()> {
        const PIPE: usize = 1 << 20;
        for _ in 0..PIPE / 4096 {
            if !self.read()? {
                break;
            }
        }
        Ok(())
    }
}

fn into_reader(pipe: OwnedFd) -> io::Result<File> {
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(pipe))
}

fn has_passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

fn poll_timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up, so that it has passed on wake-up. A longer time takes several waits.
    PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
}
