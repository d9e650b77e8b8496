//! The fork server: starts and reaps workers, kills them with their descendants, and cleans up when the agent has gone.

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

/// Serves until the agent closes the connection or exits. `starter`: the process that the agent is part of.
pub(crate) fn serve(starter: Pid, language: &'static dyn Language) -> ! {
    forget(ROLE_VARIABLE);
    // A task may start another program, to which the digest does not apply.
    forget(PROGRAM_VARIABLE);
    match inherited::reset().and_then(|()| take_stdin()).and_then(|agent| ForkServer::new(agent, starter, language)) {
        Ok(mut server) => server.run(),
        // The starter has exited.
        Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("farpool: the fork server could not start: {error}"),
    }
    // SAFETY: _exit(2) may be called at any time. The program's exit handlers must not run in this process.
    unsafe { libc::_exit(0) }
}

struct ForkServer {
    agent: OwnedFd,
    /// Readable once the process that started this one has exited.
    parent: Process,
    children: Children,
    workers: Workers,
    /// Whether this process has several threads, so that it cannot fork.
    has_threads: bool,
    language: &'static dyn Language,
}

impl ForkServer {
    fn new(agent: OwnedFd, starter: Pid, language: &'static dyn Language) -> nix::Result<ForkServer> {
        // Shown by ps and top.
        let _ = nix::sys::prctl::set_name(c"farpool-forker");
        // Processes that tasks leave behind become children of this process, which can then kill them.
        nix::sys::prctl::set_child_subreaper(true)?;
        let children = Children::listen()?;
        // Watch the process that created the socket: a fork of it may keep the socket's other end open.
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
                    Ok(Some((Request::Clear, _))) => {
                        self.kill_everything();
                        self.children.clear();
                        self.send_reply(Reply::Cleared);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
        }
        self.kill_everything();
    }

    fn spawn(&mut self, worker: u32, fds: Vec<OwnedFd>) {
        let started = match Descriptors::from_received(fds) {
            Some(descriptors) if self.has_threads => start_again(worker, &descriptors),
            Some(descriptors) => self.fork(worker, descriptors),
            // Descriptors are missing: this process has reached its limit.
            None => Err(Errno::EMFILE),
        };
        let reply = match started {
            Ok(pid) => {
                self.workers.insert(worker, pid);
                Reply::Spawned { worker, pid: pid.as_raw().unsigned_abs() }
            }
            Err(error) => Reply::SpawnFailed { worker, errno: error as i32 },
        };
        self.send_reply(reply);
    }

    fn fork(&mut self, worker: u32, descriptors: Descriptors) -> nix::Result<Pid> {
        let parent = nix::unistd::getpid();
        self.language.before_fork();
        // SAFETY: this process has one thread (`has_threads` is false, and none is started here), so the child may do
        // everything that its parent may.
        let forked = unsafe { fork() };
        if !matches!(forked, Ok(ForkResult::Child)) {
            self.language.after_fork();
        }
        match forked? {
            ForkResult::Parent { child } => {
                // Both sides do this, so that it is done before either continues. The error of the later one is
                // harmless.
                let _ = setpgid(child, child);
                Ok(child)
            }
            ForkResult::Child => {
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                self.forget_in_child();
                self.language.after_fork_in_worker(worker);
                process::work(descriptors, parent, self.language)
            }
        }
    }

    /// Closes the fork server's descriptors and removes its signal handler in a new worker.
    fn forget_in_child(&mut self) {
        for fd in [self.agent.as_raw_fd(), self.parent.as_fd().as_raw_fd()] {
            // An error would mean that it is closed already. The owners are never dropped in this process, since `work`
            // does not return.
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

    /// Reaps children that have exited. A worker's process group is killed before its number becomes free.
    fn reap(&mut self) {
        while let Some(pid) = next_exited() {
            let worker = self.workers.number_of(pid);
            if let Some(worker) = worker {
                self.workers.ended(worker);
            }
            let ended = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            if let (Some(worker), Ok(ended)) = (worker, ended) {
                self.send_reply(Reply::Exited { worker, status: raw_status(ended) });
            }
        }
    }

    /// Sends a reply. If the agent has gone, the main loop notices.
    fn send_reply(&self, reply: Reply) {
        let _ = reply.send(self.agent.as_fd());
    }

    /// Kills the workers with all that they have started, then all other children of this process.
    fn kill_everything(&mut self) {
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

/// Returns a child that has exited and was not reaped yet.
fn next_exited() -> Option<Pid> {
    waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT).ok()?.pid()
}

fn raw_status(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => (code & 0xff) << 8,
        WaitStatus::Signaled(_, signal, core_dumped) => signal as i32 | i32::from(core_dumped) << 7,
        _ => 0,
    }
}

/// Starts the program again, as a worker.
fn start_again(worker: u32, descriptors: &Descriptors) -> nix::Result<Pid> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let mut command = Command::new(OWN_EXECUTABLE);
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // As in this process, stdin is the socket, and stdout is only for workers.
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
    // `reap` reaps it like every child of this process.
    Ok(Pid::from_raw(i32::try_from(child.id()).map_err(|_| Errno::ERANGE)?))
}
