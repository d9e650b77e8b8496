//! What an agent and a fork server say to each other: one packet a message, over a SOCK_SEQPACKET socketpair.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The variable that tells a program that it was started as a fork server, or as a worker; its value is one of
/// the two below. The socket to whoever started it is its stdin.
pub const ROLE_VARIABLE: &str = "FARPOOL_ROLE";
/// The program is to be a fork server.
pub const ROLE_FORK_SERVER: &str = "fork-server";
/// The program is to be a worker (when its fork server has threads and cannot fork).
pub const ROLE_WORKER: &str = "worker";

const PACKET_BYTES: usize = 13;

/// From the agent to the fork server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start a worker under this number; four descriptors come along: shared memory,
    /// socket, stdout, stderr.
    Spawn {
        /// The number, chosen by the agent and never used twice.
        worker: u32,
    },
    /// Send a signal to the process group of a worker. Unknown or ended workers are ignored.
    Kill {
        /// The worker's number.
        worker: u32,
        /// The signal's number.
        signal: i32,
    },
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
    /// A worker has ended and was reaped; whatever was left of its process group has been killed.
    Exited {
        /// The worker's number.
        worker: u32,
        /// Its wait status, as waitpid(2) gives it.
        status: i32,
    },
}

impl Request {
    /// Sends the request; `fds` travel along.
    pub fn send(self, socket: BorrowedFd<'_>, fds: &[RawFd]) -> nix::Result<()> {
        match self {
            Request::Spawn { worker } => send(socket, packet(1, worker, 0, 0), fds),
            Request::Kill { worker, signal } => send(socket, packet(2, worker, 0, signal), fds),
        }
    }

    /// Receives a request; `None` at the end of the connection.
    pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<(Request, Vec<OwnedFd>)>> {
        let Some((packet, fds)) = receive(socket)? else { return Ok(None) };
        let (kind, worker, _, number) = parts(packet);
        match kind {
            1 => Ok(Some((Request::Spawn { worker }, fds))),
            2 => Ok(Some((Request::Kill { worker, signal: number }, fds))),
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
        };
        send(socket, packet, &[])
    }

    /// Receives a reply; `None` at the end of the connection, EAGAIN when there is none yet.
    pub fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Reply>> {
        let Some((packet, _)) = receive(socket)? else { return Ok(None) };
        let (kind, worker, pid, number) = parts(packet);
        match kind {
            1 => Ok(Some(Reply::Hello)),
            2 => Ok(Some(Reply::Spawned { worker, pid })),
            3 => Ok(Some(Reply::SpawnFailed { worker, errno: number })),
            4 => Ok(Some(Reply::Exited { worker, status: number })),
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

fn parts(packet: [u8; PACKET_BYTES]) -> (u8, u32, u32, i32) {
    let [kind, w0, w1, w2, w3, p0, p1, p2, p3, n0, n1, n2, n3] = packet;
    (
        kind,
        u32::from_le_bytes([w0, w1, w2, w3]),
        u32::from_le_bytes([p0, p1, p2, p3]),
        i32::from_le_bytes([n0, n1, n2, n3]),
    )
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

/// A packet and the descriptors that came along.
type Packet = ([u8; PACKET_BYTES], Vec<OwnedFd>);

fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Packet>> {
    let mut packet = [0; PACKET_BYTES];
    let mut control = nix::cmsg_space!([RawFd; 4]);
    let (length, fds) = loop {
        let mut parts = [IoSliceMut::new(&mut packet)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(message) => break (message.bytes, received_fds(message.cmsgs()?)),
        }
    };
    match length {
        0 => Ok(None),
        PACKET_BYTES => Ok(Some((packet, fds))),
        _ => Err(Errno::EBADMSG),
    }
}

fn received_fds(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    for message in messages {
        if let ControlMessageOwned::ScmRights(received) = message {
            // SAFETY: the kernel has just made these descriptors for this process, so nobody else owns them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    fds
}
