//! What clients' and agents' sessions have in common: they outlive their connections.

use std::net::SocketAddr;
use std::sync::Arc;

use farpool_common::log::info;
use farpool_coordinator::Principal;
use farpool_net::{Outgoing, SessionMessage};
use farpool_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::link::{Link, Resumed, Resumes, shown};
use super::super::meter::{Meter, Passed, Reading};

/// What a session is resumed by: the id that its secret gives.
pub(super) type Identity = [u8; 16];

/// The owner of a session, and what it is resumed by.
pub(super) type SessionKey = (Principal, Identity);

/// A session, over all of its connections.
pub(super) struct Session<Out> {
    pub(super) outgoing: Outgoing<Out>,
    turns: mpsc::Sender<()>,
    pub(super) address: Option<SocketAddr>,
    /// Its owner.
    pub(super) principal: Principal,
    /// The id that its secret gives. None: nobody can resume it.
    pub(super) identity: Option<Identity>,
    /// Which of its connections is in place, counted from 0.
    connection: u64,
    /// That connection is lost.
    away: bool,
    /// Its meter.
    meter: Arc<Meter>,
}

impl<Out: SessionMessage<Handshake = v1::Resumed>> Session<Out> {
    /// One that has begun; what it is known by is in its first message.
    pub(super) fn new(
        outgoing: Outgoing<Out>,
        turns: mpsc::Sender<()>,
        (principal, address): (Principal, Option<SocketAddr>),
        id: &[u8],
        passed: &Passed,
    ) -> Self {
        let (identity, meter) = (id.try_into().ok(), Arc::clone(passed.meter()));
        meter.begin_session();
        Self { outgoing, turns, address, principal, identity, connection: 0, away: false, meter }
    }

    /// What a client's session is found by. The principal is a part of it, so that another principal cannot resume it, even with the
    /// secret.
    pub(super) fn key(&self) -> Option<SessionKey> {
        self.identity.map(|own| (self.principal.clone(), own))
    }

    /// Whether that is the connection that is in place.
    pub(super) fn is_on(&self, connection: u64) -> bool {
        self.connection == connection
    }

    /// Whether that connection is in place, and lost.
    pub(super) fn is_away_from(&self, connection: u64) -> bool {
        self.away && self.is_on(connection)
    }

    /// Whether its connection is lost.
    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    /// Has the next frame read.
    pub(super) fn give_turn(&self) {
        // There is room, since its last turn is over; or it is gone.
        let _ = self.turns.try_send(());
    }

    /// Has so much of it come in from now on, in the middle of a frame too.
    pub(super) fn read(&self, reading: Reading) {
        self.meter.read(reading);
    }

    /// Puts another connection into the place of the one that there is.
    pub(super) fn resume<In, Id>(&mut self, id: Id, resumes: Resumes<Out, In, Id>) -> Result<(), Status>
    where
        In: SessionMessage,
    {
        let Resumes { received, rest, reply, turns, address, passed, resumed, .. } = resumes;
        let frames = match self.outgoing.reconnect(received) {
            Ok(frames) => frames,
            Err(status) => {
                reply.refuse(status.clone());
                return Err(status);
            }
        };
        self.connection += 1;
        (self.turns, self.address, self.away) = (turns, address, false);
        self.meter = Arc::clone(passed.meter());
        self.meter.begin_session();
        let incoming = rest.incoming(&self.outgoing);
        reply.with(frames);
        // If nobody waits for it any more, its frames were dropped with it, which is seen like any other loss.
        let _ = resumed.send(Resumed { id, connection: self.connection, incoming });
        Ok(())
    }

    /// Notes that its connection is lost.
    pub(super) fn lose_connection(&mut self) -> Lost {
        if self.identity.is_none() {
            return Lost::Ends;
        }
        if std::mem::replace(&mut self.away, true) { Lost::Known } else { Lost::MayResume(self.connection) }
    }
}

/// What becomes of a session whose connection is lost.
pub(super) enum Lost {
    /// It ends, because nobody can resume it.
    Ends,
    /// It can be resumed for a while. This is the number of the lost connection, from 0.
    MayResume(u64),
    /// The loss was known, or there is no such session.
    Known,
}

/// Refuses to resume a session that is not known.
pub(super) fn not_found<Out: SessionMessage, In: SessionMessage, Id>(
    link: &Link,
    peer: &str,
    resumes: Resumes<Out, In, Id>,
) {
    info!(link.log, peer, address = shown(resumes.address), "asked to resume an unknown session");
    resumes.reply.refuse(Status::not_found("the coordinator does not know this session, or has closed it"));
}
