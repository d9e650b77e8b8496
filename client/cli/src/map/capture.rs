//! What a command writes, until it ends.

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
use super::keep::{Keeper, Keeping, Lines, Output};

/// Reads stdout and stderr of a command as they come.
pub(super) struct Capture {
    pub(super) group: Group,
    stdout: Stream,
    stderr: Stream,
    /// Has a byte when the command has ended, and its end when its group is empty.
    news: Option<PipeReader>,
    exited: bool,
    /// Where outputs go that are too large for memory.
    spool: Option<PathBuf>,
}

struct Stream {
    /// `None`: at its end.
    file: Option<File>,
    keeper: Keeper,
}

/// What reading is to stop at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The command has ended.
    Exited,
    /// So has everything that it has left in its group.
    GroupEmpty,
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum Event {
    /// What it was to stop at.
    Reached,
    DeadlinePassed,
    /// There is more than memory is for, and no spool file.
    Full,
    /// What was read can be left nowhere.
    NotKept(io::Error),
}

/// Outputs of this size and more are not held in memory, if they can be spooled.
const LARGE: usize = 1 << 20;
/// What one item may write where they cannot: a little less than a pool's largest result.
const MOST_HELD: usize = (1 << 30) - (1 << 20);

impl Capture {
    /// Begins with this child, whose outputs are pipes, and which leads a process group.
    pub(super) fn start(mut child: Child, keeping: &Keeping) -> io::Result<Capture> {
        let (stdout, stderr, spool) = match keeping {
            Keeping::InMemory => (Keeper::Held(Vec::new()), Keeper::Held(Vec::new()), None),
            Keeping::Spooled(path) => (Keeper::Held(Vec::new()), Keeper::Held(Vec::new()), Some(path.clone())),
            Keeping::Lines { tag, lock } => {
                let (tag, lock) = (tag.as_deref(), lock.as_deref());
                let (out, err) = (Lines::new(io::stdout(), tag, lock)?, Lines::new(io::stderr(), tag, lock)?);
                (Keeper::Lines(out), Keeper::Lines(err), None)
            }
        };
        let stdout =
            Stream { file: child.stdout.take().map(OwnedFd::from).map(into_reader).transpose()?, keeper: stdout };
        let stderr =
            Stream { file: child.stderr.take().map(OwnedFd::from).map(into_reader).transpose()?, keeper: stderr };
        let (group, news) = Group::of(child)?;
        Ok(Capture { group, stdout, stderr, news: Some(news), exited: false, spool })
    }

    /// Reads until that has happened, there is too much, or the deadline has passed.
    pub(super) fn run(&mut self, until: Until, deadline: Option<Instant>) -> io::Result<Event> {
        loop {
            let Some(news) = self.news.as_ref().filter(|_| until == Until::GroupEmpty || !self.exited) else {
                return Ok(Event::Reached);
            };
            let mut ready = vec![PollFd::new(news.as_fd(), PollFlags::POLLIN)];
            let open = [&self.stdout, &self.stderr].into_iter().filter_map(|stream| stream.file.as_ref());
            ready.extend(open.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
            match poll(&mut ready, patience(deadline)) {
                Ok(0) if has_passed(deadline) => return Ok(Event::DeadlinePassed),
                Ok(0) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if ready[0].revents().is_some_and(|events| !events.is_empty()) {
                self.take_news()?;
                continue;
            }
            if let Err(error) = self.read_once() {
                return Ok(Event::NotKept(error));
            }
            if self.held() >= MOST_HELD {
                return Ok(Event::Full);
            }
            // A command that never stops writing has its deadline too.
            if has_passed(deadline) {
                return Ok(Event::DeadlinePassed);
            }
        }
    }

    /// Reads what is there, without waiting, and ends. Returns how the command has ended, and what it has written. Everybody in its
    /// group is to have ended, or about to.
    pub(super) fn end(mut self) -> (io::Result<ExitStatus>, io::Result<[Output; 2]>) {
        let status = self.group.join();
        // Who has left the group may go on writing for ever.
        let drained = self.stdout.drain().and_then(|()| self.stderr.drain());
        let outputs = drained.and_then(|()| Ok([self.stdout.keeper.end()?, self.stderr.keeper.end()?]));
        (status, outputs)
    }

    fn held(&self) -> usize {
        self.stdout.keeper.held() + self.stderr.keeper.held()
    }

    fn take_news(&mut self) -> io::Result<()> {
        let Some(news) = &mut self.news else { return Ok(()) };
        match news.read(&mut [0])? {
            0 => self.news = None,
            _ => self.exited = true,
        }
        self.exited |= self.news.is_none();
        Ok(())
    }

    fn read_once(&mut self) -> io::Result<()> {
        self.stdout.read()?;
        self.stderr.read()?;
        if let Some(path) = &self.spool
            && self.held() >= LARGE
        {
            for stream in [&mut self.stdout, &mut self.stderr] {
                stream.keeper.spool(path)?;
                if let Some(pipe) = &stream.file {
                    // More is moved at once then; where the user has too many pipes it stays as it is.
                    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(1 << 20));
                }
            }
        }
        Ok(())
    }
}

impl Stream {
    /// Reads once; returns whether there may be more.
    fn read(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        match self.keeper.take_from(file) {
            Ok(0) => self.file = None,
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Reads what a pipe holds at most.
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

fn patience(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up: there is no sense in waking before it has passed. What is too long for one wait takes several.
    PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX)
}
