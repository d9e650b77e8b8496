//! Borrowing the slot of the item whose task has started this process, while it waits for items of its own.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use farpool_link::item_token::{Claim, GRANTED, ItemToken, socket_name};
use farpool_proto::v1::Ticket;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use uuid::Uuid;

/// How long the agent may take to answer; it is on this host, and does nothing for long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A claim that the item's agent has granted: good until this is dropped.
pub(crate) struct Borrower {
    ticket: Ticket,
    _connection: UnixStream,
}

impl Borrower {
    /// Claims the slot. `None`: no item's task has started this process, or its agent does not say so.
    pub(crate) fn claim() -> Option<Borrower> {
        let ItemToken { agent, secret, position } = farpool_worker::inherited_item()?;
        let ticket = Uuid::new_v4().as_u128();
        let mut connection = UnixStream::from(connected(&socket_name(agent)).ok()?);
        connection.set_nonblocking(false).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).ok()?;
        connection.set_write_timeout(Some(PATIENCE)).ok()?;
        connection.write_all(&Claim { ticket, secret, position }.to_bytes()).ok()?;
        let mut answer = [0];
        connection.read_exact(&mut answer).ok()?;
        let bytes = |number: u128| Bytes::copy_from_slice(&number.to_be_bytes());
        let ticket = Ticket { agent: bytes(agent), id: bytes(ticket) };
        (answer == [GRANTED]).then_some(Borrower { ticket, _connection: connection })
    }

    /// What the coordinator is shown.
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }
}

/// Connects at once, or not at all.
fn connected(name: &str) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    Ok(fd)
}
