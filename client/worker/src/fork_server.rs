//! The fork server's own end: starts workers, reaps them, kills them with what belongs to them, and when the agent is gone
//! leaves nothing behind.

#![expect(
    unsafe_code,
    reason = "fork(2), environment and signals of a process that belongs to farpool alone; argued at each block"
)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use farpool_link::message::{OWN_EXECUTABLE, PROGRAM_VARIABLE, ROLE_VARIABLE, ROLE_WORKER, Reply, Request};
use farpool_link::process::{Process, children_of};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use crate::children::Children;
use crate::descriptors::{Descriptors, forget, take_stdin};
use crate::kill::Workers;
use crate::language::Language;
use crate::{inherited, process};

/// Serves until the agent closes the connection or ends. `starter`: the process that the agent is part of.
pub(crate) fn serve(starter: Pid, language: &'static dyn Language) -> ! {
    forget(ROLE_VARIABLE);
    // What a task starts may be another program.
    forget(PROGRAM_VARIABLE);
    match inherited::settle().and_then(|()| take_stdin()).and_then(|agent| ForkServer::new(agent, starter, language)) {
        Ok(mut server) => server.run(),
        // The starter has ended meanwhile.
        Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("farpool: the fork server could not start: {error}"),
    }
    // SAFETY: _exit(2) may be called at any time; the program's exit handlers are not this process's business.
    unsafe { libc::_exit(0) }
}

struct ForkServer {
    agent: OwnedFd,
    /// Readable once the process that started this one has ended.
    parent: Process,
    children: Children,
    workers: Workers,
    /// This process has several threads, so workers cannot be forked.
    has_threads: bool,
    language: &'static dyn Language,
}

impl ForkServer {
    fn new(agent: OwnedFd, starter: Pid, language: &'static dyn Language) -> nix::Result<ForkServer> {
        // Names are for ps and top only.
        let _ = nix::sys::prctl::set_name(c"farpool-forker");
        // Whatever tasks start and leave behind becomes a child of this process, which can then end it.
        nix::sys::prctl::set_child_subreaper(true)?;
        let children = Children::listen()?;
        // Of the very process that has made the socket: a fork of it may hold the socket's other end open.
        let parent = Process::open(starter)?;
        let has_threads = std::fs::read_dir("/proc/self/task").map_or(true, |tasks| tasks.count() > 1);
        Reply::Hello.send(agent.as_fd())?;
        Ok(ForkServer { agent, parent, children, workers: Workers::default(), has_threads, language })
    }

    fn run(&mut self) {
        loop {
            let mut ready = [self.agent.as_fd(), self.parent.as_fd(), self.children.as_fd()]
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut ready, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(_) => break,
                Ok(_) => {}
            }
            let [agent, parent, children] = ready.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            if parent {
                break;
            }
            if children {
                self.children.clear();
                self.reap();
            }
            if agent {
                match Request::receive(self.agent.as_fd()) {
                    Ok(Some((Request::Spawn { worker }, fds))) => self.spawn(worker, fds),
                    Ok(Some((Request::Kill { worker, signal }, _))) => self.kill(worker, signal),
                    Ok(None) | Err(_) => break,
                }
            }
        }
        self.leave_nothing_behind();
    }

    fn spawn(&mut self, worker: u32, fds: Vec<OwnedFd>) {
        let started = match Descriptors::from_received(fds) {
            Some(descriptors) if self.has_threads => start_anew(worker, &descriptors),
            Some(descriptors) => self.fork(descriptors),
            // They have not all come: this process may not have so many.
            None => Err(Errno::EMFILE),
        };
        let reply = match started {
            Ok(pid) => {
                self.workers.insert(worker, pid);
                Reply::Spawned { worker, pid: pid.as_raw().unsigned_abs() }
            }
            Err(error) => Reply::SpawnFailed { worker, errno: error as i32 },
        };
        self.tell(reply);
    }

    fn fork(&mut self, descriptors: Descriptors) -> nix::Result<Pid> {
        let parent = nix::unistd::getpid();
        self.language.before_fork();
        // SAFETY: this process has one thread (`has_threads` was false, and none is started here), so the child may
        // do everything that its parent may.
        let forked = unsafe { fork() };
        if !matches!(forked, Ok(ForkResult::Child)) {
            self.language.after_fork();
        }
        match forked? {
            ForkResult::Parent { child } => {
                // Both sides do this, so that it is done whoever comes first; the loser's error means just that.
                let _ = setpgid(child, child);
                Ok(child)
            }
            ForkResult::Child => {
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                self.forget_in_child();
                self.language.after_fork_in_worker();
                process::work(descriptors, parent, self.language)
            }
        }
    }

    /// A worker has no business with its fork server's descriptors and signal handler.
    fn forget_in_child(&mut self) {
        for fd in [self.agent.as_raw_fd(), self.parent.as_fd().as_raw_fd()] {
            // An error would mean that it is closed already. The owners are never dropped in this process:
            // `work` does not return.
            let _ = nix::unistd::close(fd);
        }
        self.children.forget();
        self.workers = Workers::default();
    }

    fn kill(&mut self, worker: u32, signal: i32) {
        if let Ok(signal) = Signal::try_from(signal) {
            self.workers.signal(worker, signal);
        }
    }

    /// Reaps whoever has ended. A worker's process group is killed before its number becomes free.
    fn reap(&mut self) {
        while let Some(pid) = next_ended() {
            let worker = self.workers.number_of(pid);
            if let Some(worker) = worker {
                self.workers.ended(worker);
            }
            let ended = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            if let (Some(worker), Ok(ended)) = (worker, ended) {
                self.tell(Reply::Exited { worker, status: raw_status(ended) });
            }
        }
    }

    /// An agent that cannot be told is noticed by the loop.
    fn tell(&self, reply: Reply) {
        let _ = reply.send(self.agent.as_fd());
    }

    /// Kills the workers with all that they have started, then whatever else has become a child of this process.
    fn leave_nothing_behind(&mut self) {
        self.workers.kill_all();
        loop {
            for child in children_of(Pid::this()) {
                let _ = kill(child, Signal::SIGKILL);
            }
            match waitpid(None, None) {
                Err(Errno::EINTR) | Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// A child that has ended and was not reaped yet.
fn next_ended() -> Option<Pid> {
    waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT).ok()?.pid()
}

fn raw_status(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => (code & 0xff) << 8,
        WaitStatus::Signaled(_, signal, core_dumped) => signal as i32 | i32::from(core_dumped) << 7,
        _ => 0,
    }
}

/// Starts the program once more, as a worker.
fn start_anew(worker: u32, descriptors: &Descriptors) -> nix::Result<Pid> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut command = Command::new(OWN_EXECUTABLE);
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // As this process was started: stdin is the socket, stdout is for workers only.
    let child = command
        .args(arguments)
        .env(ROLE_VARIABLE, ROLE_WORKER)
        .stdin(theirs)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn();
    let child = child.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let Descriptors { memory, socket, stdout, stderr } = descriptors;
    let fds = [memory, socket, stdout, stderr].map(AsRawFd::as_raw_fd);
    Request::Spawn { worker }.send(ours.as_fd(), &fds)?;
    // Reaped like every child of this process, by `reap`.
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(|_| Errno::ERANGE)?))
}
