//! The common part of clients' and agents' sessions, which outlive their connections.

use std::net::SocketAddr;
use std::sync::Arc;

use farpool_common::log::info;
use farpool_coordinator::Principal;
use farpool_net::{Outgoing, SessionMessage};
use farpool_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::link::{Link, ResumeRequest, Resumed, address_for_log};
use super::super::meter::{Meter, Passed, Reading};

/// The id by which a session is resumed, derived from its secret.
pub(super) type Identity = [u8; 16];

/// The owner of a session, and the id by which it is resumed.
pub(super) type SessionKey = (Principal, Identity);

/// A session across all of its connections.
pub(super) struct Session<Out> {
    pub(super) outgoing: Outgoing<Out>,
    turns: mpsc::Sender<()>,
    pub(super) address: Option<SocketAddr>,
    pub(super) principal: Principal,
    /// The id derived from its secret. `None`: nobody can resume it.
    pub(super) identity: Option<Identity>,
    /// The number of its current connection, from 0.
    connection: u64,
    /// Its current connection is lost.
    disconnected: bool,
    meter: Arc<Meter>,
}

impl<Out: SessionMessage<Handshake = v1::Resumed>> Session<Out> {
    /// Creates a session that has begun. `id` is from its first message.
    pub(super) fn new(
        outgoing: Outgoing<Out>,
        turns: mpsc::Sender<()>,
        (principal, address): (Principal, Option<SocketAddr>),
        id: &[u8],
        passed: &Passed,
    ) -> Self {
        let (identity, meter) = (id.try_into().ok(), Arc::clone(passed.meter()));
        meter.begin_session();
        Self { outgoing, turns, address, principal, identity, connection: 0, disconnected: false, meter }
    }

    /// Returns the key by which a client's session is found. It includes the principal, so that another principal cannot resume the session,
    /// even with the secret.
    pub(super) fn key(&self) -> Option<SessionKey> {
        self.identity.map(|own| (self.principal.clone(), own))
    }

    /// Returns whether this is its current connection.
    pub(super) fn is_current(&self, connection: u64) -> bool {
        self.connection == connection
    }

    /// Returns whether this is its current connection, and it is lost.
    pub(super) fn has_lost(&self, connection: u64) -> bool {
        self.disconnected && self.is_current(connection)
    }

    /// Returns whether its connection is lost.
    pub(super) fn is_disconnected(&self) -> bool {
        self.disconnected
    }

    /// Lets the next frame be read.
    pub(super) fn give_turn(&self) {
        // There is room, since its last turn is over, or its reader is gone.
        let _ = self.turns.try_send(());
    }

    /// Sets how much of it is read from now on, even in the middle of a frame.
    pub(super) fn read(&self, reading: Reading) {
        self.meter.read(reading);
    }

    /// Replaces its connection.
    pub(super) fn resume<In, Id>(&mut self, id: Id, request: ResumeRequest<Out, In, Id>) -> Result<(), Status>
    where
        In: SessionMessage,
    {
        let ResumeRequest { received, rest, reply, turns, address, passed, resumed, .. } = request;
        let frames = match self.outgoing.reconnect(received) {
            Ok(frames) => frames,
            Err(status) => {
                reply.refuse(status.clone());
                return Err(status);
            }
        };
        self.connection += 1;
        (self.turns, self.address, self.disconnected) = (turns, address, false);
        self.meter = Arc::clone(passed.meter());
        self.meter.begin_session();
        let incoming = rest.incoming(&self.outgoing);
        reply.with(frames);
        // If the receiver is gone, its frames were dropped with it, which is noticed like any other loss.
        let _ = resumed.send(Resumed { id, connection: self.connection, incoming });
        Ok(())
    }

    /// Notes that its connection is lost.
    pub(super) fn lose_connection(&mut self) -> Lost {
        if self.identity.is_none() {
            return Lost::Ends;
        }
        if std::mem::replace(&mut self.disconnected, true) { Lost::Known } else { Lost::MayResume(self.connection) }
    }
}

/// The fate of a session whose connection is lost.
pub(super) enum Lost {
    /// It ends, because nobody can resume it.
    Ends,
    /// It can be resumed for a while. This is the number of the lost connection, from 0.
    MayResume(u64),
    /// The loss was known, or there is no such session.
    Known,
}

/// Refuses to resume an unknown session.
pub(super) fn not_found<Out: SessionMessage, In: SessionMessage, Id>(
    link: &Link,
    peer: &str,
    request: ResumeRequest<Out, In, Id>,
) {
    info!(link.log, peer, address = address_for_log(request.address), "asked to resume an unknown session");
    request.reply.refuse(Status::not_found("the coordinator does not know this session, or has closed it"));
}
