//! What wakes a pool: ready descriptors, and deadlines.

use std::os::fd::BorrowedFd;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

/// The descriptor of a pool that an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    ForkServer,
    /// The socket of the worker with this number.
    Socket(u32),
    /// The stderr of the worker with this number.
    Stderr(u32),
    /// Its stdout.
    Stdout(u32),
    ForkServerStderr,
}

impl Token {
    /// Makes `epoll` report the descriptor with this token. `serial`: the pool's number in this agent.
    pub(super) fn watch(self, epoll: &Epoll, serial: u64, fd: BorrowedFd<'_>) {
        // An error would mean an invalid descriptor or no memory.
        let _ = epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, self.pack(serial)));
    }

    fn pack(self, serial: u64) -> u64 {
        let (kind, number) = match self {
            Token::ForkServer => (0, 0),
            Token::Socket(number) => (1, number),
            Token::Stderr(number) => (2, number),
            Token::Stdout(number) => (3, number),
            Token::ForkServerStderr => (0, 1),
        };
        (serial & 0x3fff_ffff) << 34 | kind << 32 | u64::from(number)
    }

    /// Returns the token in an event's data, if it belongs to the pool with this number.
    pub(crate) fn unpack(data: u64, serial: u64) -> Option<Token> {
        let number = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        if data >> 34 != serial & 0x3fff_ffff {
            return None;
        }
        Some(match (data >> 32 & 3, number) {
            (0, 0) => Token::ForkServer,
            (0, _) => Token::ForkServerStderr,
            (1, _) => Token::Socket(number),
            (2, _) => Token::Stderr(number),
            _ => Token::Stdout(number),
        })
    }
}

/// Whether and how long the driver may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// There is work now.
    Busy,
    /// It may sleep until a descriptor is ready or until this time (CLOCK_MONOTONIC, ns).
    Until(Option<u64>),
}
