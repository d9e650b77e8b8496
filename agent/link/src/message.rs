//! The messages between an agent and a fork server: one packet each, over a SOCK_SEQPACKET socketpair.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recvmsg, sendmsg};

use crate::descriptors;

/// The variable that tells a program that it was started as a fork server or worker: [`ROLE_FORK_SERVER`] or [`ROLE_WORKER`]. Its
/// stdin is the socket to the process that started it.
pub const ROLE_VARIABLE: &str = "FARPOOL_ROLE";
/// The variable that tells a program its own digest in hexadecimal, if an agent has started it.
pub const PROGRAM_VARIABLE: &str = "FARPOOL_PROGRAM";
/// Run as a fork server.
pub const ROLE_FORK_SERVER: &str = "fork-server";
/// Run as a worker (used if the fork server has threads and cannot fork).
pub const ROLE_WORKER: &str = "worker";

/// The kernel's link to the executable of this process, even if its path has changed.
pub const OWN_EXECUTABLE: &str = "/proc/self/exe";

const PACKET_BYTES: usize = 13;

/// From the agent to the fork server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start a worker with this number. Four descriptors are attached: shared memory, socket, stdout, stderr.
    Spawn {
        /// The number, chosen by the agent and not reused before [`Reply::Cleared`].
        worker: u32,
    },
    /// Send a signal to a worker, its process group and its descendants. SIGKILL ends all of them. Unknown or exited
    /// workers are ignored.
    Kill {
        /// The worker's number.
        worker: u32,
        /// The signal's number.
        signal: i32,
    },
    /// Kill and reap all that is left of a pool, and answer [`Reply::Cleared`]: another pool will use the fork server.
    Clear,
}

/// From the fork server to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The program reached `farpool::init()`.
    Hello,
    /// A worker was started.
    Spawned {
        /// The worker's number.
        worker: u32,
        /// Its process id.
        pid: u32,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// The worker's number.
        worker: u32,
        /// The error's number.
        errno: i32,
    },
    /// A worker has exited and was reaped; the rest of its process group was killed.
    Exited {
        /// The worker's number.
        worker: u32,
        /// Its wait status, as waitpid(2) gives it.
        status: i32,
    },
    /// The fork server has no children. Worker numbers may be used again.
    Cleared,
}

impl Request {
    /// Sends the request with these descriptors.
    pub fn send(self, socket: BorrowedFd<'_>, fds: &[RawFd]) -> nix::Result<()> {
        match self {
            Request::Spawn { worker } => send(socket, packet(1, worker, 0, 0), fds),
            Request::Kill { worker, signal } => send(socket, packet(2, worker, 0, signal), fds),
            Request::Clear => send(socket, packet(3, 0, 0, 0), fds),
        }
    }

    /// Receives a request; `None` at the end of the connection. Its descriptors are missing if this process has reached
    /// its limit on open files.
    pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<(Request, Vec<OwnedFd>)>> {
        let mut packet = [0; PACKET_BYTES];
        let (length, fds) = descriptors::receive(socket, &mut packet)?;
        let Some((kind, worker, _, number)) = parts(packet, length)? else { return Ok(None) };
        match kind {
            1 => Ok(Some((Request::Spawn { worker }, fds))),
            2 => Ok(Some((Request::Kill { worker, signal: number }, fds))),
            3 => Ok(Some((Request::Clear, fds))),
            _ => Err(Errno::EBADMSG),
        }
    }
}

impl Reply {
    /// Sends the reply.
    pub fn send(self, socket: BorrowedFd<'_>) -> nix::Result<()> {
        let packet = match self {
            Reply::Hello => packet(1, 0, 0, 0),
            Reply::Spawned { worker, pid } => packet(2, worker, pid, 0),
            Reply::SpawnFailed { worker, errno } => packet(3, worker, 0, errno),
            Reply::Exited { worker, status } => packet(4, worker, 0, status),
            Reply::Cleared => packet(5, 0, 0, 0),
        };
        send(socket, packet, &[])
    }

    /// Receives a reply; `None` at the end of the connection, EAGAIN when there is none yet.
    pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Reply>> {
        let mut packet = [0; PACKET_BYTES];
        let mut buffer = [IoSliceMut::new(&mut packet)];
        // Without a buffer for descriptors, the kernel closes them and sets a flag.
        let (length, flags) = loop {
            match recvmsg::<()>(socket.as_raw_fd(), &mut buffer, None, MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(Errno::EINTR) => {}
                received => break received.map(|message| (message.bytes, message.flags))?,
            }
        };
        if flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC) {
            return Err(Errno::EBADMSG);
        }
        let Some((kind, worker, pid, number)) = parts(packet, length)? else { return Ok(None) };
        match kind {
            1 => Ok(Some(Reply::Hello)),
            2 => Ok(Some(Reply::Spawned { worker, pid })),
            3 => Ok(Some(Reply::SpawnFailed { worker, errno: number })),
            4 => Ok(Some(Reply::Exited { worker, status: number })),
            5 => Ok(Some(Reply::Cleared)),
            _ => Err(Errno::EBADMSG),
        }
    }
}

fn packet(kind: u8, worker: u32, pid: u32, number: i32) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[0] = kind;
    packet[1..5].copy_from_slice(&worker.to_le_bytes());
    packet[5..9].copy_from_slice(&pid.to_le_bytes());
    packet[9..13].copy_from_slice(&number.to_le_bytes());
    packet
}

/// Decodes a packet of this length; `None`: the connection has ended.
fn parts(packet: [u8; PACKET_BYTES], length: usize) -> nix::Result<Option<(u8, u32, u32, i32)>> {
    let [kind, w0, w1, w2, w3, p0, p1, p2, p3, n0, n1, n2, n3] = packet;
    match length {
        0 => Ok(None),
        PACKET_BYTES => Ok(Some((
            kind,
            u32::from_le_bytes([w0, w1, w2, w3]),
            u32::from_le_bytes([p0, p1, p2, p3]),
            i32::from_le_bytes([n0, n1, n2, n3]),
        ))),
        _ => Err(Errno::EBADMSG),
    }
}

fn send(socket: BorrowedFd<'_>, packet: [u8; PACKET_BYTES], fds: &[RawFd]) -> nix::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&packet)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("there are sockets")
    }

    /// Returns a pipe: its write end is sent, its read end shows when all copies are closed.
    fn telltale() -> (File, OwnedFd) {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("there are pipes");
        (File::from(read), write)
    }

    /// Waits until all copies are closed. A child process that another test starts has one until it runs its program.
    #[track_caller]
    fn all_closed(mut telltale: File) {
        use std::io::Read;
        let mut watched = [PollFd::new(telltale.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut watched, 10_000_u16), Ok(1), "a copy is still open");
        assert_eq!(telltale.read(&mut [0]).expect("a pipe"), 0);
    }

    #[test]
    fn descriptors_sent_with_a_reply_are_closed_and_the_reply_is_rejected() {
        for count in [1, 4, 5, 253] {
            let ((ours, theirs), (read, write)) = (pair(), telltale());
            let hello = packet(1, 0, 0, 0);
            send(theirs.as_fd(), hello, &vec![write.as_raw_fd(); count]).expect("the descriptors fit");
            drop(write);
            assert_eq!(Reply::receive(ours.as_fd()), Err(Errno::EBADMSG));
            all_closed(read);
        }
    }

    #[test]
    fn all_descriptors_of_a_request_arrive() {
        for count in [0, 3, 4, 5, 253] {
            let ((ours, theirs), (read, write)) = (pair(), telltale());
            let request = Request::Spawn { worker: 7 };
            request.send(theirs.as_fd(), &vec![write.as_raw_fd(); count]).expect("the descriptors fit");
            drop(write);
            let (received, fds) =
                Request::receive(ours.as_fd()).expect("the request is complete").expect("the socket is not at its end");
            assert_eq!((received, fds.len()), (request, count));
            drop(fds);
            all_closed(read);
        }
    }

    #[test]
    fn packets_with_wrong_lengths_are_rejected() {
        for length in [1, PACKET_BYTES - 1, PACKET_BYTES + 1, 1000] {
            let (ours, theirs) = pair();
            for _ in 0..2 {
                let sent = nix::sys::socket::send(theirs.as_raw_fd(), &vec![1; length], MsgFlags::empty());
                assert_eq!(sent, Ok(length));
            }
            assert_eq!(Reply::receive(ours.as_fd()), Err(Errno::EBADMSG), "{length}");
            assert_eq!(Request::receive(ours.as_fd()).err(), Some(Errno::EBADMSG), "{length}");
        }
    }
}
