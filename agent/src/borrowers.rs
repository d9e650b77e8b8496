//! Borrowers: programs that tasks have started. While they wait, the slots of their items are lent.
//!
//! Each program connects to a socket of this agent and claims an item ([`Claim`]). The kernel identifies the connected
//! process. The claim is granted if that process descends from the item's worker, and lasts as long as the connection.
//! The coordinator knows the program by the ticket that the program chose, and reports when it waits.
//!
//! Any process on this host can connect. So the number of connections is bounded, and the work for them in each round.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use farpool_link::item_token::{Claim, GRANTED, socket_name};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

/// Most connections, unless a quarter of this process's descriptor limit is less. Beyond it, connections without a
/// granted claim are closed first.
const MAX_CONNECTIONS: usize = 512;
/// Most connections without a granted claim; beyond it, the oldest is closed.
const MAX_UNDECIDED: usize = 64;
/// Most programs of one worker. Further programs wait for slots of their own.
const MAX_PER_WORKER: usize = 256;
/// Most connections accepted in one turn.
const MAX_ACCEPTED: usize = 16;
/// Most claims decided in one round; each decision reads /proc a few times.
const MAX_DECIDED: usize = 4;
/// The data of the listener's epoll events. The events of connections carry the connection's number; all pools' events
/// are 2^34 or more.
const LISTENER: u32 = 0;

/// The programs that may borrow slots.
#[derive(Debug)]
pub(crate) struct Borrowers {
    listener: UnixListener,
    connections: VecDeque<Connection>,
    /// Number of the latest connection.
    last: u32,
    most: usize,
    /// Secrets of workers that may have lost a borrower.
    lost: Vec<u128>,
}

#[derive(Debug)]
struct Connection {
    number: u32,
    stream: UnixStream,
    /// The part of its claim that has arrived.
    bytes: [u8; Claim::BYTES],
    read: usize,
    state: ClaimState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimState {
    /// Its claim has not arrived completely.
    Silent,
    Claims(Claim),
    Granted {
        claim: Claim,
        /// The process id of the worker that is an ancestor of the program.
        worker: u32,
        /// The program waits, as the coordinator has reported.
        waits: bool,
    },
}

impl Borrowers {
    /// Listens for claims at the agent with this id; `epoll` reports them.
    pub(crate) fn listen(agent: u128, epoll: &Epoll) -> io::Result<Borrowers> {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(socket_name(agent))?)?;
        listener.set_nonblocking(true)?;
        // Edge-triggered, so that a connection that cannot be accepted (out of descriptors) does not wake the agent
        // again and again.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&listener, EpollEvent::new(flags, u64::from(LISTENER)))?;
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(limit, _)| limit);
        let most = usize::try_from(descriptors / 4).map_or(MAX_CONNECTIONS, |most| most.min(MAX_CONNECTIONS));
        let (connections, lost) = Default::default();
        Ok(Borrowers { listener, connections, last: LISTENER, most, lost })
    }

    /// Returns the number of a descriptor from an epoll event's data, if it belongs to a descriptor here.
    pub(crate) fn number(data: u64) -> Option<u32> {
        u32::try_from(data).ok()
    }

    /// Handles a ready descriptor.
    pub(crate) fn ready(&mut self, number: u32, epoll: &Epoll) {
        if number == LISTENER {
            self.accept(epoll);
        } else if let Some(at) = self.connections.iter().position(|connection| connection.number == number) {
            self.read_claim(at);
        }
    }

    /// Returns whether there are undecided claims.
    pub(crate) fn has_claims(&self) -> bool {
        self.next_claim().is_some()
    }

    /// Decides some claims. `worker` returns the process id of the claim's worker, if the process descends from it and
    /// it runs the claimed item.
    pub(crate) fn decide(&mut self, worker: impl Fn(Pid, &Claim) -> Option<u32>) {
        for _ in 0..MAX_DECIDED {
            let Some((at, claim)) = self.next_claim() else { return };
            let worker = self.connections[at].peer().and_then(|pid| worker(pid, &claim));
            let granted = worker.filter(|worker| self.may_have(&claim, *worker));
            let connection = &mut self.connections[at];
            match granted {
                Some(worker) if connection.send_granted() => {
                    connection.state = ClaimState::Granted { claim, worker, waits: false };
                }
                _ => self.remove(at),
            }
        }
    }

    /// Records whether the program with this ticket waits. Returns the secret of its worker, if the program is known.
    pub(crate) fn set_waiting(&mut self, ticket: u128, now_waits: bool) -> Option<u128> {
        self.connections.iter_mut().find_map(|connection| match &mut connection.state {
            ClaimState::Granted { claim, waits, .. } if claim.ticket == ticket => {
                *waits = now_waits;
                Some(claim.secret)
            }
            _ => None,
        })
    }

    /// Forgets which programs wait.
    pub(crate) fn clear_waiting(&mut self) {
        for connection in &mut self.connections {
            if let ClaimState::Granted { waits, .. } = &mut connection.state {
                *waits = false;
            }
        }
    }

    /// Returns the positions of this worker's items whose programs wait.
    pub(crate) fn waiting_for(&self, secret: u128) -> Vec<u32> {
        let waits = self.connections.iter().filter_map(|connection| match connection.state {
            ClaimState::Granted { claim, waits: true, .. } if claim.secret == secret => Some(claim.position),
            _ => None,
        });
        waits.collect()
    }

    /// Returns the secret of a worker that may have lost a borrower.
    pub(crate) fn next_lost(&mut self) -> Option<u128> {
        self.lost.pop()
    }

    /// Closes the connections of programs whose worker has ended.
    pub(crate) fn retain_workers(&mut self, is_worker: impl Fn(u32) -> bool) {
        self.connections.retain(|connection| match connection.state {
            ClaimState::Granted { worker, .. } => is_worker(worker),
            _ => true,
        });
    }

    fn accept(&mut self, epoll: &Epoll) {
        for _ in 0..MAX_ACCEPTED {
            // An error means that none is left, or that no descriptor is free; the next connection is reported anyway.
            let Ok((stream, _)) = self.listener.accept() else { return };
            let number = self.last.checked_add(1).unwrap_or(LISTENER + 1);
            let watched = stream.set_nonblocking(true).is_ok()
                && epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number))).is_ok();
            if !watched {
                continue;
            }
            self.last = number;
            self.make_room();
            if self.connections.len() >= self.most {
                continue;
            }
            let bytes = [0; Claim::BYTES];
            self.connections.push_back(Connection { number, stream, bytes, read: 0, state: ClaimState::Silent });
            // The claim has usually arrived already.
            self.read_claim(self.connections.len() - 1);
        }
        // There may be more connections: re-arm the edge-triggered event.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let _ = epoll.modify(&self.listener, &mut EpollEvent::new(flags, u64::from(LISTENER)));
    }

    /// Closes the oldest connection without a granted claim, if there are too many.
    fn make_room(&mut self) {
        let undecided = |connection: &Connection| !matches!(connection.state, ClaimState::Granted { .. });
        let count = self.connections.iter().filter(|connection| undecided(connection)).count();
        if (count >= MAX_UNDECIDED || self.connections.len() >= self.most)
            && let Some(oldest) = self.connections.iter().position(undecided)
        {
            self.remove(oldest);
        }
    }

    /// Returns the oldest undecided claim and the index of its connection.
    fn next_claim(&self) -> Option<(usize, Claim)> {
        self.connections.iter().enumerate().find_map(|(at, connection)| match connection.state {
            ClaimState::Claims(claim) => Some((at, claim)),
            _ => None,
        })
    }

    fn read_claim(&mut self, at: usize) {
        if !self.connections[at].read_claim() {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(ClaimState::Granted { claim, .. }) = self.connections.remove(at).map(|connection| connection.state)
        {
            self.lost.push(claim.secret);
        }
    }

    /// Returns whether the worker may have another borrower and the ticket is not in use.
    fn may_have(&self, claim: &Claim, its_worker: u32) -> bool {
        let mut of_worker = 0;
        for connection in &self.connections {
            let ClaimState::Granted { claim: other, worker, .. } = &connection.state else { continue };
            if other.ticket == claim.ticket {
                return false;
            }
            of_worker += usize::from(*worker == its_worker);
        }
        of_worker < MAX_PER_WORKER
    }
}

impl Connection {
    /// Reads from the connection. Returns whether it stays open: it must send exactly one claim.
    fn read_claim(&mut self) -> bool {
        let mut rest = [0; Claim::BYTES + 1];
        let room = Claim::BYTES + 1 - self.read;
        match self.stream.read(&mut rest[..room]) {
            Ok(count) if count == 0 || count == room || self.state != ClaimState::Silent => false,
            Ok(count) => {
                self.bytes[self.read..self.read + count].copy_from_slice(&rest[..count]);
                self.read += count;
                if self.read == Claim::BYTES {
                    self.state = ClaimState::Claims(Claim::from_bytes(&self.bytes));
                }
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Returns the connected process; `None` if it is in a process namespace that this agent cannot see.
    fn peer(&self) -> Option<Pid> {
        let peer = getsockopt(&self.stream.as_fd(), PeerCredentials).ok()?;
        Some(Pid::from_raw(peer.pid())).filter(|pid| pid.as_raw() > 0)
    }

    fn send_granted(&mut self) -> bool {
        self.stream.write(&[GRANTED]).is_ok_and(|count| count == 1)
    }
}
