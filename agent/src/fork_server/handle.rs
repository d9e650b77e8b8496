use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_VARIABLE, Reply, Request};
use farpool_link::process::Process;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use super::Program;
use crate::standard::HoldStandard;

/// How often starting a program whose file is open for writing is retried, and after how long.
const BUSY_RETRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Time for a dropped fork server to exit by itself, in milliseconds.
const DROP_GRACE_MS: u16 = 1000;

/// A running fork server, as the agent sees it. Dropping it closes its connection: the fork server kills every worker
/// and exits.
#[derive(Debug)]
pub struct ForkServer {
    socket: Option<OwnedFd>,
    child: Child,
    /// The process of `child`. A pid is meaningless once its process has been reaped, and the program of this process
    /// may do so: it may ignore SIGCHLD or wait for any child. `None`: it has been reaped.
    process: Option<Process>,
}

impl ForkServer {
    /// Starts the program as a fork server with this stderr; `None`: that of this process.
    pub fn start(program: &Program, stderr: Option<OwnedFd>) -> io::Result<ForkServer> {
        let _standard = HoldStandard::new()?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // A process group of its own: Ctrl-C in a terminal is for the client, which then ends its workers. The program
        // has already printed in the client what it prints before farpool::init(), so stdout is /dev/null here; workers
        // get the real one. Without pre_exec, the standard library may use posix_spawn, which does not copy the page
        // tables.
        let mut command = program.command();
        command.env(ROLE_VARIABLE, ROLE_FORK_SERVER).stdin(theirs).process_group(0);
        if let Some(stderr) = stderr {
            command.stderr(stderr);
        }
        let mut child = spawn(&mut command)?;
        match Process::open(pid_of(&child)) {
            Ok(process) => Ok(ForkServer { socket: Some(ours), child, process: Some(process) }),
            Err(nix::errno::Errno::ESRCH) => Ok(ForkServer { socket: Some(ours), child, process: None }),
            Err(error) => {
                // The fork server exits when its connection closes.
                drop(ours);
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    /// Returns the connection, to wait on.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Returns the fork server's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the process with this id, if it is a child of the fork server.
    pub(crate) fn child(&self, pid: u32) -> Option<Process> {
        let _standard = HoldStandard::new().ok()?;
        Process::open_child(Pid::from_raw(i32::try_from(pid).ok()?), pid_of(&self.child))
    }

    /// Requests a worker with this shared memory, socket, stdout and stderr.
    pub fn spawn(&self, worker: u32, descriptors: [BorrowedFd<'_>; 4]) -> nix::Result<()> {
        Request::Spawn { worker }.send(self.connection()?, &descriptors.map(|fd| fd.as_raw_fd()))
    }

    /// Requests a signal to a worker, its process group and its descendants.
    pub fn kill(&self, worker: u32, signal: Signal) -> nix::Result<()> {
        Request::Kill { worker, signal: signal as i32 }.send(self.connection()?, &[])
    }

    /// Requests that it kills and reaps all that is left of its pool; it answers [`Reply::Cleared`].
    pub(crate) fn clear(&self) -> nix::Result<()> {
        Request::Clear.send(self.connection()?, &[])
    }

    /// Returns whether its process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let Some(process) = &self.process else { return true };
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) != Ok(0)
    }

    /// Returns the next reply; `Ok(None)` if there is none now.
    ///
    /// # Errors
    /// EPIPE if the fork server has ended.
    pub fn next_reply(&self) -> nix::Result<Option<Reply>> {
        let mut reply = Reply::receive(self.connection()?);
        // It ended with unread requests. This is reported once, ahead of its replies.
        if reply == Err(nix::errno::Errno::ECONNRESET) {
            reply = Reply::receive(self.connection()?);
        }
        match reply {
            Ok(None) | Err(nix::errno::Errno::ECONNRESET) => Err(nix::errno::Errno::EPIPE),
            Err(nix::errno::Errno::EAGAIN) => Ok(None),
            other => other,
        }
    }

    /// Closes the connection: the fork server kills and reaps its workers and exits. [`ForkServer::next_reply`] then
    /// returns EPIPE.
    pub fn close(&mut self) {
        if let Some(socket) = &self.socket {
            // An error means that it has ended already.
            let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        }
    }

    /// Kills and reaps the fork server after it has closed its end of the connection.
    pub fn end(&mut self) {
        self.socket = None;
        self.kill_server();
        // An error means that the program has reaped it.
        let _ = self.child.wait();
    }

    /// Describes how it ended, after [`ForkServer::end`].
    pub fn exit_description(&mut self) -> String {
        self.child.wait().map_or_else(
            |_| "exit status unknown: this program ignores SIGCHLD or waits for every child".to_owned(),
            |status| status.to_string(),
        )
    }

    /// Kills the fork server itself; its workers die with it.
    pub fn kill_server(&mut self) {
        if let Some(process) = &self.process {
            // An error means that it has ended already.
            let _ = process.signal(Signal::SIGKILL);
        }
    }

    fn connection(&self) -> nix::Result<BorrowedFd<'_>> {
        self.socket().ok_or(nix::errno::Errno::EPIPE)
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        // Closing the connection makes it exit. It is reaped, or it would stay a zombie for as long as this process
        // lives.
        self.socket = None;
        if let Some(process) = &self.process {
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            // After the wait it is killed in any case.
            let _ = poll(&mut ended, PollTimeout::from(DROP_GRACE_MS));
        }
        self.end();
    }
}

/// Starts the command. A program that was just written may be busy for a moment: a child that another thread forks has
/// the file open until it executes its own program.
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..BUSY_RETRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    command.spawn()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id is a positive number"))
}
