//! Programs that tasks have started, and for which their items' slots are lent while they wait.
//!
//! Each connects to a socket of this agent and claims an item ([`Claim`]). The kernel says which process has connected: the claim is
//! granted to one that descends from the item's worker. It holds as long as the connection. Coordinators know the program by the ticket
//! that it has chosen, and say when it waits.
//!
//! Anybody on this host can connect, so all of it is bounded: connections, and what is done for them in a round of the agent.

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

/// Connections at once, or a quarter of the descriptors that this process may have. Beyond that those go first that have no granted claim.
const MOST: usize = 512;
/// Connections without a granted claim; the oldest goes when there is another one.
const MOST_UNDECIDED: usize = 64;
/// Programs of one worker: a task that starts more of them at once waits for slots of its own.
const MOST_OF_ONE_WORKER: usize = 256;
/// Connections that are accepted in one turn.
const MOST_AT_ONCE: usize = 16;
/// Claims that are decided in one round: for each, /proc is read a few times.
const MOST_DECIDED: usize = 4;
/// The data of the listener's epoll events; those of connections have their number. No pool's events are below 2^34.
const LISTENER: u32 = 0;

/// Whom slots may be lent for.
#[derive(Debug)]
pub(crate) struct Borrowers {
    listener: UnixListener,
    connections: VecDeque<Connection>,
    /// How many connections there have been.
    last: u32,
    most: usize,
    /// Workers that may have lost a borrower, by their secrets.
    lost: Vec<u128>,
}

#[derive(Debug)]
struct Connection {
    number: u32,
    stream: UnixStream,
    /// What has come of its claim.
    bytes: [u8; Claim::BYTES],
    read: usize,
    state: ClaimState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimState {
    /// Its claim is not here yet.
    Silent,
    Claims(Claim),
    Granted {
        claim: Claim,
        /// The process id of the worker that the program descends from.
        worker: u32,
        /// The coordinator says that the program waits.
        waits: bool,
    },
}

impl Borrowers {
    /// Hears the claims for the agent with this id; `epoll` reports them.
    pub(crate) fn listen(agent: u128, epoll: &Epoll) -> io::Result<Borrowers> {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(socket_name(agent))?)?;
        listener.set_nonblocking(true)?;
        // Edge-triggered: a connection that cannot be accepted, because descriptors have run out, does not wake the agent again and again.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&listener, EpollEvent::new(flags, u64::from(LISTENER)))?;
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(limit, _)| limit);
        let most = usize::try_from(descriptors / 4).map_or(MOST, |most| most.min(MOST));
        let (connections, lost) = Default::default();
        Ok(Borrowers { listener, connections, last: LISTENER, most, lost })
    }

    /// Whether the data of an epoll event is that of a descriptor here.
    pub(crate) fn number(data: u64) -> Option<u32> {
        u32::try_from(data).ok()
    }

    /// A descriptor is ready.
    pub(crate) fn ready(&mut self, number: u32, epoll: &Epoll) {
        if number == LISTENER {
            self.accept(epoll);
        } else if let Some(at) = self.connections.iter().position(|connection| connection.number == number) {
            self.hear(at);
        }
    }

    /// Whether claims wait for a decision.
    pub(crate) fn has_claims(&self) -> bool {
        self.next_claim().is_some()
    }

    /// Decides some claims. `worker`: the process id of the worker that a process descends from, if it is the one of the claim and runs
    /// its item.
    pub(crate) fn decide(&mut self, worker: impl Fn(Pid, &Claim) -> Option<u32>) {
        for _ in 0..MOST_DECIDED {
            let Some((at, claim)) = self.next_claim() else { return };
            let worker = self.connections[at].peer().and_then(|pid| worker(pid, &claim));
            let granted = worker.filter(|worker| self.may_have(&claim, *worker));
            let connection = &mut self.connections[at];
            match granted {
                Some(worker) if connection.tell_granted() => {
                    connection.state = ClaimState::Granted { claim, worker, waits: false };
                }
                _ => self.remove(at),
            }
        }
    }

    /// The program with this ticket waits, or does not any more. Returns the secret of the worker that it descends from, if there is one.
    pub(crate) fn note_waiting(&mut self, ticket: u128, now_waits: bool) -> Option<u128> {
        self.connections.iter_mut().find_map(|connection| match &mut connection.state {
            ClaimState::Granted { claim, waits, .. } if claim.ticket == ticket => {
                *waits = now_waits;
                Some(claim.secret)
            }
            _ => None,
        })
    }

    /// What the coordinator has said of programs that wait does not count any more.
    pub(crate) fn forget_who_waits(&mut self) {
        for connection in &mut self.connections {
            if let ClaimState::Granted { waits, .. } = &mut connection.state {
                *waits = false;
            }
        }
    }

    /// The positions of the items of this worker for which programs wait.
    pub(crate) fn waiting_for(&self, secret: u128) -> Vec<u32> {
        let waits = self.connections.iter().filter_map(|connection| match connection.state {
            ClaimState::Granted { claim, waits: true, .. } if claim.secret == secret => Some(claim.position),
            _ => None,
        });
        waits.collect()
    }

    /// The secret of a worker that may have lost a borrower since.
    pub(crate) fn next_lost(&mut self) -> Option<u128> {
        self.lost.pop()
    }

    /// Lets those go whose worker is not there any more.
    pub(crate) fn keep_of(&mut self, is_worker: impl Fn(u32) -> bool) {
        self.connections.retain(|connection| match connection.state {
            ClaimState::Granted { worker, .. } => is_worker(worker),
            _ => true,
        });
    }

    fn accept(&mut self, epoll: &Epoll) {
        for _ in 0..MOST_AT_ONCE {
            // An error means that this was all, or that there is no descriptor for it: the next one that comes is told again.
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
            // Mostly the claim is there already.
            self.hear(self.connections.len() - 1);
        }
        // There may be others: to be told of them again.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let _ = epoll.modify(&self.listener, &mut EpollEvent::new(flags, u64::from(LISTENER)));
    }

    /// Ends the oldest connection without a granted claim, if there are too many.
    fn make_room(&mut self) {
        let undecided = |connection: &Connection| !matches!(connection.state, ClaimState::Granted { .. });
        let count = self.connections.iter().filter(|connection| undecided(connection)).count();
        if (count >= MOST_UNDECIDED || self.connections.len() >= self.most)
            && let Some(oldest) = self.connections.iter().position(undecided)
        {
            self.remove(oldest);
        }
    }

    /// The oldest claim that was not decided, and whose it is.
    fn next_claim(&self) -> Option<(usize, Claim)> {
        self.connections.iter().enumerate().find_map(|(at, connection)| match connection.state {
            ClaimState::Claims(claim) => Some((at, claim)),
            _ => None,
        })
    }

    fn hear(&mut self, at: usize) {
        if !self.connections[at].hear() {
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(ClaimState::Granted { claim, .. }) = self.connections.remove(at).map(|connection| connection.state)
        {
            self.lost.push(claim.secret);
        }
    }

    /// Whether the worker may have one more borrower, and the ticket is not in use.
    fn may_have(&self, claim: &Claim, its_worker: u32) -> bool {
        let mut of_worker = 0;
        for connection in &self.connections {
            let ClaimState::Granted { claim: other, worker, .. } = &connection.state else { continue };
            if other.ticket == claim.ticket {
                return false;
            }
            of_worker += usize::from(*worker == its_worker);
        }
        of_worker < MOST_OF_ONE_WORKER
    }
}

impl Connection {
    /// Reads what has come. Returns whether the connection is open and has said no more than it may.
    fn hear(&mut self) -> bool {
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

    /// The process that has connected; none: it is in a process namespace that this agent cannot see into.
    fn peer(&self) -> Option<Pid> {
        let peer = getsockopt(&self.stream.as_fd(), PeerCredentials).ok()?;
        Some(Pid::from_raw(peer.pid())).filter(|pid| pid.as_raw() > 0)
    }

    fn tell_granted(&mut self) -> bool {
        self.stream.write(&[GRANTED]).is_ok_and(|count| count == 1)
    }
}
