//! Borrowing the slot of the item whose task has started this process, while it waits for items of its own.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use farpool_link::item_token::{Claim, GRANTED, ItemToken, socket_name};
use farpool_proto::v1::Ticket;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::TimeVal;
use uuid::Uuid;

use crate::fork::PerProcess;

/// How long the agent may take to accept the connection, and then to answer. It is on this host, and never blocks for long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The notice for the user if the claim is not granted.
const REFUSED: &str = "a farpool task has started this program, but its agent does not find the program among the task's processes: \
                       the task keeps its slot while the program waits for items of its own";

/// All pools and readers of this process share one claim.
static CURRENT: PerProcess<Mutex<Weak<Borrower>>> = PerProcess::new();

/// A claim that the item's agent has granted: valid until this is dropped.
pub(crate) struct Borrower {
    ticket: Ticket,
    _connection: UnixStream,
}

impl Borrower {
    /// Claims the slot. Returns `None` if no task has started this process. If the agent does not grant the claim, calls
    /// `report` with a notice, and returns `None` too.
    pub(crate) fn claim(report: impl FnOnce(&str)) -> Option<Arc<Borrower>> {
        let token = farpool_worker::inherited_item()?;
        let current = CURRENT.get();
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(borrower) = current.upgrade() {
            return Some(borrower);
        }
        match Borrower::ask(token) {
            Ok(borrower) => {
                let borrower = Arc::new(borrower);
                *current = Arc::downgrade(&borrower);
                Some(borrower)
            }
            Err(_) => {
                report(REFUSED);
                None
            }
        }
    }

    /// Returns the proof for the coordinator.
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    fn ask(ItemToken { agent, secret, position }: ItemToken) -> io::Result<Borrower> {
        let ticket = Uuid::new_v4().as_u128();
        let mut connection = UnixStream::from(connected(&socket_name(agent))?);
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.write_all(&Claim { ticket, secret, position }.to_bytes())?;
        let mut answer = [0];
        connection.read_exact(&mut answer)?;
        if answer != [GRANTED] {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let bytes = |number: u128| Bytes::copy_from_slice(&number.to_be_bytes());
        Ok(Borrower { ticket: Ticket { agent: bytes(agent), id: bytes(ticket) }, _connection: connection })
    }
}

fn connected(name: &str) -> nix::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Applies to connecting, too.
    setsockopt(&fd, SendTimeout, &TimeVal::new(TIMEOUT.as_secs().cast_signed(), 0))?;
    connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    Ok(fd)
}
