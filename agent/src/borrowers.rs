//! Programs that tasks have started, and for which their items' slots are lent while they wait.
//!
//! Each connects to a socket of this agent and claims an item ([`Claim`]). The kernel says which process has connected: the claim is
//! granted to one that descends from the item's worker. It holds as long as the connection. Coordinators know the program by the ticket
//! that it has chosen, and say when it waits.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use farpool_link::item_token::{Claim, GRANTED, socket_name};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// Connections that have not claimed anything; the oldest goes when there is another one.
const MOST_UNDECIDED: usize = 64;
/// Programs of one worker.
const MOST_OF_ONE_WORKER: usize = 64;
/// Connections that are accepted in one turn.
const MOST_AT_ONCE: usize = 16;
/// The data of the listener's epoll events; those of connections have their number. No pool's events are below 2^34.
const LISTENER: u32 = 0;

/// Whom slots may be lent for.
#[derive(Debug)]
pub(crate) struct Borrowers {
    listener: UnixListener,
    connections: Vec<Connection>,
    /// How many connections there have been.
    last: u32,
}

#[derive(Debug)]
struct Connection {
    number: u32,
    stream: UnixStream,
    /// What has come of its claim.
    claim: [u8; Claim::BYTES],
    read: usize,
    granted: Option<Granted>,
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    claim: Claim,
    /// The coordinator says that the program waits.
    waits: bool,
}

impl Borrowers {
    /// Hears the claims for the agent with this id; `epoll` reports them.
    pub(crate) fn listen(agent: u128, epoll: &Epoll) -> io::Result<Borrowers> {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(socket_name(agent))?)?;
        listener.set_nonblocking(true)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(LISTENER)))?;
        Ok(Borrowers { listener, connections: Vec::new(), last: LISTENER })
    }

    /// Whether the data of an epoll event is that of a descriptor here.
    pub(crate) fn number(data: u64) -> Option<u32> {
        u32::try_from(data).ok()
    }

    /// A descriptor is ready. `descends`: whether a process descends from the worker with a secret. Returns the secret of the worker that
    /// may have lost a borrower.
    pub(crate) fn ready(&mut self, number: u32, epoll: &Epoll, descends: impl Fn(u32, u128) -> bool) -> Option<u128> {
        if number == LISTENER {
            self.accept(epoll);
            return None;
        }
        let at = self.connections.iter().position(|connection| connection.number == number)?;
        let may_stay = match self.connections[at].hear() {
            Heard::Nothing => true,
            Heard::Claim(claim) => self.may_have(&claim) && self.connections[at].decide(claim, descends),
            Heard::End => false,
        };
        if may_stay {
            return None;
        }
        let gone = self.connections.swap_remove(at);
        gone.granted.map(|granted| granted.claim.secret)
    }

    /// The program with this ticket waits, or does not any more. Returns the secret of the worker that it descends from, if there is one.
    pub(crate) fn note_waiting(&mut self, ticket: u128, waits: bool) -> Option<u128> {
        let granted = self.granted_mut().find(|granted| granted.claim.ticket == ticket)?;
        granted.waits = waits;
        Some(granted.claim.secret)
    }

    /// What the coordinator has said of programs that wait does not count any more.
    pub(crate) fn forget_who_waits(&mut self) {
        self.granted_mut().for_each(|granted| granted.waits = false);
    }

    /// The position of the latest item of this worker for which a program waits.
    pub(crate) fn waiting_for(&self, secret: u128) -> Option<u32> {
        let waits = self.granted().filter(|granted| granted.claim.secret == secret && granted.waits);
        waits.map(|granted| granted.claim.position).max()
    }

    fn accept(&mut self, epoll: &Epoll) {
        for _ in 0..MOST_AT_ONCE {
            // EAGAIN: that was all. Anything else concerns one connection, or will pass.
            let Ok((stream, _)) = self.listener.accept() else { return };
            let number = self.last.checked_add(1).unwrap_or(LISTENER + 1);
            let watched = stream.set_nonblocking(true).is_ok()
                && epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, u64::from(number))).is_ok();
            if !watched {
                continue;
            }
            self.last = number;
            let undecided = |connection: &Connection| connection.granted.is_none();
            if self.connections.iter().filter(|connection| undecided(connection)).count() >= MOST_UNDECIDED
                && let Some(oldest) = self.connections.iter().position(undecided)
            {
                self.connections.remove(oldest);
            }
            let claim = [0; Claim::BYTES];
            self.connections.push(Connection { number, stream, claim, read: 0, granted: None });
        }
    }

    /// Whether there is room for another program of this worker, and nobody else has the ticket.
    fn may_have(&self, claim: &Claim) -> bool {
        let of_worker = self.granted().filter(|granted| granted.claim.secret == claim.secret).count();
        of_worker < MOST_OF_ONE_WORKER && self.granted().all(|granted| granted.claim.ticket != claim.ticket)
    }

    fn granted(&self) -> impl Iterator<Item = &Granted> {
        self.connections.iter().filter_map(|connection| connection.granted.as_ref())
    }

    fn granted_mut(&mut self) -> impl Iterator<Item = &mut Granted> {
        self.connections.iter_mut().filter_map(|connection| connection.granted.as_mut())
    }
}

/// What a connection has said.
enum Heard {
    Nothing,
    Claim(Claim),
    /// It is closed, or says more than it may.
    End,
}

impl Connection {
    fn hear(&mut self) -> Heard {
        let mut rest = [0; Claim::BYTES + 1];
        let room = Claim::BYTES + 1 - self.read;
        match self.stream.read(&mut rest[..room]) {
            Ok(0) => Heard::End,
            Ok(count) if count == room || self.granted.is_some() => Heard::End,
            Ok(count) => {
                self.claim[self.read..self.read + count].copy_from_slice(&rest[..count]);
                self.read += count;
                if self.read < Claim::BYTES { Heard::Nothing } else { Heard::Claim(Claim::from_bytes(&self.claim)) }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }

    /// Grants the claim if whoever has connected descends from the worker that it names; returns whether it did.
    fn decide(&mut self, claim: Claim, descends: impl Fn(u32, u128) -> bool) -> bool {
        let pid =
            getsockopt(&self.stream.as_fd(), PeerCredentials).ok().and_then(|peer| u32::try_from(peer.pid()).ok());
        // 0: it is in a process namespace that this agent cannot see into.
        let good = pid.is_some_and(|pid| pid > 0 && descends(pid, claim.secret))
            && self.stream.write(&[GRANTED]).is_ok_and(|count| count == 1);
        if good {
            self.granted = Some(Granted { claim, waits: false });
        }
        good
    }
}
