//! A session in which a job is detached: handles its client's messages, and answers them.

use std::collections::VecDeque;

use bytes::Bytes;
use farpool_coordinator::convert::{Batch, OfOneJob, check_job_message};
use farpool_coordinator::{Principal, Refused, RefusedKind};
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{
    ClientEvent, ClientMessage, Durable, JobEnded, OpenJob, OpenPool, PoolClosed, Welcome, Window, client_message,
};
use prost::Message;
use tonic::Status;

use super::super::client::Client;
use super::super::round::Round;
use super::checks::payload_limit_of;

/// How many bytes of items may arrive ahead of those that are durable. Nothing runs before the job is complete, so the window grows with
/// durable items, and not with outcomes.
const WINDOW: u64 = 16 << 20;

pub(super) struct Detaching {
    pub(super) outgoing: Outgoing<ClientEvent>,
    pub(super) owner: Principal,
    /// The id derived from its secret, which is also the job's.
    pub(super) id: Bytes,
    /// The pool that it has opened, as it will be stored; empty once the job is open.
    pub(super) pool: Box<OpenPool>,
    /// The limit of an item's size.
    payload_limit: u64,
    /// The job's number in messages, and in the store.
    wire_number: Option<u64>,
    pub(super) job: Option<u64>,
    /// The index of the next item; `None`: any item may be the first.
    next: Option<u64>,
    input_ended: bool,
    /// Bytes of items that have arrived, that were stored, and that may arrive.
    arrived: u64,
    pub(super) stored: u64,
    limit: u64,
    /// How many items were reported to it as durable; `None`: nothing was reported yet.
    reported: Option<u64>,
    /// The parts that the store has not taken yet, and their size in bytes.
    parked: VecDeque<Part>,
    parked_bytes: u64,
    /// Its client has withdrawn the job, and is answered when that is durable.
    pub(super) withdrawal: Option<Withdrawal>,
}

/// What the answer to a withdrawal waits for while nothing can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawal {
    /// Nothing: the job is incomplete on disk, so it never runs.
    Safe,
    /// The withdrawal of the record that completes this job, which may be on disk.
    Of(u64),
}

/// A part of a client's messages that goes to the store.
pub(super) enum Part {
    Job(Box<OpenJob>),
    Items(Batch),
    End,
}

impl Part {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Job(job) => job.encoded_len() as u64,
            Self::Items(batch) => batch.bytes(),
            Self::End => 0,
        };
        bytes + size_of::<Self>() as u64
    }
}

/// The action that follows from a message.
pub(super) enum Handled {
    /// Store the parked parts.
    Parked,
    /// The client no longer wants the job.
    Withdrawn,
}

impl Detaching {
    /// Begins a session that has opened this pool, and welcomes its client.
    pub(super) fn new(round: &Round, client: &Client, mut pool: Box<OpenPool>) -> Self {
        let (id, payload_limit) = (std::mem::take(&mut pool.id), payload_limit_of(&pool));
        let pool =
            OpenPool { secret: Bytes::new(), again: false, agents: Vec::new(), ticket: None, detached: false, ..*pool };
        let detaching = Self {
            outgoing: client.session.outgoing.clone(),
            owner: client.session.principal.clone(),
            id,
            pool: Box::new(pool),
            payload_limit,
            wire_number: None,
            job: None,
            next: None,
            input_ended: false,
            arrived: 0,
            stored: 0,
            limit: WINDOW,
            reported: None,
            parked: VecDeque::new(),
            parked_bytes: 0,
            withdrawal: None,
        };
        detaching.send(Body::Welcome(welcome(round, WINDOW)));
        detaching
    }

    /// Handles a message. Parts for the store are parked behind earlier ones.
    pub(super) fn handle(&mut self, message: ClientMessage) -> Result<Handled, Status> {
        use client_message::Body;
        match message.body {
            Some(Body::OpenJob(open)) if self.wire_number.is_none() => {
                if open.detach.is_none() {
                    return Err(refusal(RefusedKind::Missing("detach").into()));
                }
                self.wire_number = Some(open.job);
                self.park(Part::Job(open));
            }
            Some(Body::CancelJob(cancel)) if self.wire_number == Some(cancel.job) => return Ok(Handled::Withdrawn),
            Some(Body::ClosePool(close)) if close.now || self.wire_number.is_none() => return Ok(Handled::Withdrawn),
            Some(Body::ClosePool(_) | Body::PoolReopened(_)) => {}
            body @ (None | Some(Body::Items(_) | Body::EndItems(_))) => {
                match check_job_message(ClientMessage { body }).map_err(refusal)? {
                    OfOneJob::Items(of, batch) if self.wire_number == Some(of) => self.handle_batch(of, batch)?,
                    OfOneJob::End(of) if self.wire_number == Some(of) => {
                        self.check_input()?;
                        self.input_ended = true;
                        self.park(Part::End);
                    }
                    _ => return Err(self.unexpected()),
                }
            }
            Some(_) => return Err(self.unexpected()),
        }
        Ok(Handled::Parked)
    }

    /// Refuses a message that does not belong in such a session.
    fn unexpected(&self) -> Status {
        Status::invalid_argument(match self.wire_number {
            Some(wire_number) => {
                format!("expected Items or EndItems of job {wire_number}, in a session that detaches it")
            }
            None => "a session that detaches a job opens the job first".to_owned(),
        })
    }

    fn handle_batch(&mut self, wire_number: u64, batch: Batch) -> Result<(), Status> {
        self.check_input()?;
        if let Some(next) = self.next.filter(|next| batch.first != *next) {
            return Err(gap(batch.first, next));
        }
        let limit = self.payload_limit;
        if let Some((item, bytes)) = batch.longer_than(limit) {
            return Err(refusal(RefusedKind::ItemTooLarge { item, bytes, limit }.into()));
        }
        if self.arrived >= self.limit {
            return Err(refusal(RefusedKind::WindowOverrun { job: wire_number, limit: self.limit }.into()));
        }
        self.arrived += batch.bytes();
        self.next = Some(batch.first + batch.count);
        self.park(Part::Items(batch));
        Ok(())
    }

    fn check_input(&self) -> Result<(), Status> {
        if self.input_ended { Err(Status::invalid_argument("a message after EndItems")) } else { Ok(()) }
    }

    fn park(&mut self, part: Part) {
        self.parked_bytes += part.bytes();
        self.parked.push_back(part);
    }

    /// Takes the next part for the store.
    pub(super) fn unpark(&mut self) -> Option<Part> {
        let part = self.parked.pop_front()?;
        self.parked_bytes -= part.bytes();
        Some(part)
    }

    /// Parks a part that the store did not take again, in front of the others.
    pub(super) fn park_again(&mut self, part: Part) {
        self.parked_bytes += part.bytes();
        self.parked.push_front(part);
    }

    /// Returns the name of the job that it is about to open.
    pub(super) fn parked_name(&self) -> Option<&str> {
        match self.parked.front()? {
            Part::Job(open) => open.detach.as_ref().map(|detach| detach.name.as_str()),
            Part::Items(_) | Part::End => None,
        }
    }

    /// Drops the parked parts.
    pub(super) fn forget_parked(&mut self) {
        (self.parked, self.parked_bytes) = (VecDeque::new(), 0);
    }

    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Returns the size of the parked parts in bytes.
    pub(super) fn parked_bytes(&self) -> u64 {
        self.parked_bytes
    }

    /// Returns whether its client waits for the disk. `items` is how many have arrived.
    pub(super) fn waits_for_disk(&self, items: Option<u64>) -> bool {
        self.reported != items || self.has_parked()
    }

    pub(super) fn send(&self, body: Body) {
        self.outgoing.push(ClientEvent { body: Some(body) });
    }

    /// Reports to the client that items before this index are durable. `bytes`: how many of the bytes that it has sent
    /// are durable; its window grows with them.
    pub(super) fn send_durable(&mut self, items: u64, bytes: u64) {
        let job = self.wire_number.unwrap_or_default();
        if self.reported != Some(items) {
            self.reported = Some(items);
            self.send(Body::Durable(Durable { job, items, complete: false }));
        }
        if bytes + WINDOW > self.limit {
            self.limit = bytes + WINDOW;
            self.send(Body::Window(Window { job, limit: self.limit }));
        }
    }

    /// Reports to the client that its whole job is durable, which ends the session.
    pub(super) fn send_complete(&self, items: u64) {
        let job = self.wire_number.unwrap_or_default();
        self.send(Body::Durable(Durable { job, items, complete: true }));
        self.send(Body::PoolClosed(PoolClosed {}));
    }

    /// Reports to the client that its job was withdrawn, which ends the session.
    pub(super) fn send_withdrawn(&self) {
        if let Some(job) = self.wire_number {
            self.send(Body::JobEnded(JobEnded { job, cancelled: true }));
        }
        self.send(Body::PoolClosed(PoolClosed {}));
    }
}

/// Returns the answer to the first message of a session.
pub(super) fn welcome(round: &Round, window: u64) -> Welcome {
    let coordinator = Bytes::copy_from_slice(&round.id);
    // The pool that hands a job over has been told the limit.
    Welcome { version: Some(farpool_proto::version()), window, coordinator, payload_limit: 0 }
}

/// Refuses items that do not follow the previous ones.
pub(super) fn gap(first: u64, next: u64) -> Status {
    Status::invalid_argument(format!("items from {first} on were sent, but item {next} is the next"))
}

fn refusal(refused: Refused) -> Status {
    Status::invalid_argument(refused.to_string())
}
