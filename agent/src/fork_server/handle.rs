use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Child;

use farpool_link::message::{ROLE_FORK_SERVER, ROLE_VARIABLE, Reply, Request};
use farpool_link::process::Process;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;

use super::Program;
use crate::standard::HoldStandard;

/// Time for a fork server to end by itself, in milliseconds, when nobody waits for its workers any more.
const DROP_GRACE_MS: u16 = 1000;

/// A running fork server, seen from the agent. Dropping it closes its connection, upon which it kills every worker
/// and ends.
#[derive(Debug)]
pub struct ForkServer {
    socket: Option<OwnedFd>,
    child: Child,
    /// The same. Its number means nothing once it has been reaped, which need not be by us: a program may ignore SIGCHLD, or
    /// wait for whatever child ends. None: that has happened already.
    process: Option<Process>,
}

impl ForkServer {
    /// Starts the program as a fork server, with this as its stderr; `None`: that of this process.
    pub fn start(program: &Program, stderr: Option<OwnedFd>) -> io::Result<ForkServer> {
        let _standard = HoldStandard::new()?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // A process group of its own: Ctrl-C in a terminal is for the client, whose end then ends the rest.
        // What the program prints before farpool::init() it has printed once, in the client. Workers get the real stdout.
        // No pre_exec: so the standard library may use posix_spawn, which does not copy the page tables.
        let mut command = program.command();
        command.env(ROLE_VARIABLE, ROLE_FORK_SERVER).stdin(theirs).process_group(0);
        if let Some(stderr) = stderr {
            command.stderr(stderr);
        }
        let mut child = command.spawn()?;
        match Process::open(pid_of(&child)) {
            Ok(process) => Ok(ForkServer { socket: Some(ours), child, process: Some(process) }),
            Err(nix::errno::Errno::ESRCH) => Ok(ForkServer { socket: Some(ours), child, process: None }),
            Err(error) => {
                // It ends with its connection.
                drop(ours);
                let _ = child.wait();
                Err(error.into())
            }
        }
    }

    /// The connection, to wait on.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// The fork server's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that it calls so, if that is a child of it.
    pub(crate) fn child(&self, pid: u32) -> Option<Process> {
        let _standard = HoldStandard::new().ok()?;
        Process::open_child(Pid::from_raw(i32::try_from(pid).ok()?), pid_of(&self.child))
    }

    /// Asks for a worker with this shared memory, socket, stdout and stderr.
    pub fn spawn(&self, worker: u32, descriptors: [BorrowedFd<'_>; 4]) -> nix::Result<()> {
        Request::Spawn { worker }.send(self.connection()?, &descriptors.map(|fd| fd.as_raw_fd()))
    }

    /// Asks to send a signal to a worker, and to what belongs to it.
    pub fn kill(&self, worker: u32, signal: Signal) -> nix::Result<()> {
        Request::Kill { worker, signal: signal as i32 }.send(self.connection()?, &[])
    }

    /// The next reply that is there; `Ok(None)`: there is none now; EPIPE: the fork server has ended.
    pub fn next_reply(&self) -> nix::Result<Option<Reply>> {
        let mut reply = Reply::receive(self.connection()?);
        // It has ended before it had read all, which is told once, and before what it had said.
        if reply == Err(nix::errno::Errno::ECONNRESET) {
            reply = Reply::receive(self.connection()?);
        }
        match reply {
            Ok(None) | Err(nix::errno::Errno::ECONNRESET) => Err(nix::errno::Errno::EPIPE),
            Err(nix::errno::Errno::EAGAIN) => Ok(None),
            other => other,
        }
    }

    /// Closes the connection: the fork server kills and reaps what is left of its workers, and ends, which its end
    /// of the connection tells ([`ForkServer::next_reply`]).
    pub fn close(&mut self) {
        if let Some(socket) = &self.socket {
            // An error means that it has ended already.
            let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        }
    }

    /// Reaps the fork server, which has closed its end of the connection and is about to be gone, and killed if not.
    pub fn end(&mut self) {
        self.socket = None;
        self.force();
        // An error means that somebody else has reaped it.
        let _ = self.child.wait();
    }

    /// How it ended, after [`ForkServer::end`].
    pub fn how_it_ended(&mut self) -> String {
        self.child.wait().map_or_else(
            |_| "its exit status is unknown: this program ignores SIGCHLD, or waits for every child".to_owned(),
            |status| status.to_string(),
        )
    }

    /// Kills the fork server itself; its workers die with it.
    pub fn force(&mut self) {
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
        // Closing the connection is what ends it; a zombie would be left for as long as this process lives.
        self.socket = None;
        if let Some(process) = &self.process {
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            // Whatever comes of it, it is killed then.
            let _ = poll(&mut ended, PollTimeout::from(DROP_GRACE_MS));
        }
        self.end();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id is a positive number"))
}
