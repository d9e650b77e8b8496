//! Serves the clients that read jobs. Outcomes are read from disk when a session's queue has room. All these sessions together may hold a
//! share of the memory, in addition to their windows. Beyond it, up to twice the share, only sessions that have read everything are
//! served. Beyond that, sessions that read nothing for a while are closed: their outcomes are still on disk.

use std::collections::BTreeMap;

use farpool_coordinator::ClientId;
use farpool_coordinator::convert::{Batch, Ticket};
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{
    Attach, ClientEvent, ClientMessage, ItemsDone, ItemsFailed, JobEnded, PoolClosed, PoolFailed, client_message,
};
use farpool_store::{Ended, Outcomes, Read, ReadError, Unread};
use tonic::Status;

use super::super::super::link::ReadResult;
use super::super::client::{Client, unread};
use super::super::round::Round;
use super::checks::{check_id, not_found};
use super::detaching::welcome;
use super::intake::SessionEnd;
use super::tracked_store::TrackedStore;

/// All clients that are sent outcomes.
#[derive(Default)]
pub(super) struct Readers {
    all: BTreeMap<ClientId, ServedReader>,
    /// Sessions to be ended.
    pub(super) ends: Vec<SessionEnd>,
    /// How many bytes they hold together, as of this round.
    held: u64,
    /// When they were last checked.
    checked_at: u64,
}

/// A session that is sent a job's outcomes.
struct ServedReader {
    outgoing: Outgoing<ClientEvent>,
    job: u64,
    /// The job's number in messages.
    wire_number: u64,
    /// The first item whose outcome was not read from disk yet.
    next: u64,
    /// The client waits for outcomes that do not exist yet.
    wait: bool,
    /// The job was incomplete when it was described.
    partial: bool,
    /// Items without an outcome were skipped.
    skipped_items: bool,
    /// How many bytes are being read for it, if any.
    reading: Option<u64>,
    /// How many bytes it had not read at the last change, and when that was.
    unread_bytes: u64,
    changed_at: u64,
    /// The ticket for the slot that is lent while the client waits, if an item's task started it.
    ticket: Option<Ticket>,
    /// The client has reported that it does nothing but wait for outcomes.
    only_waits: bool,
}

impl ServedReader {
    /// Returns how many bytes it holds, without those that may be in flight.
    fn held(&self) -> u64 {
        self.unread_bytes() + self.reading.unwrap_or(0)
    }

    /// Returns how many bytes it has not read.
    fn unread_bytes(&self) -> u64 {
        unread(&self.outgoing)
    }

    fn send(&self, body: Body) {
        self.outgoing.push(ClientEvent { body: Some(body) });
    }

    /// Converts outcomes to a message, without those that it was sent before. Also returns the first index of all outcomes, and the index
    /// after the last.
    fn rest_of(&self, outcomes: Outcomes) -> (u64, u64, Body) {
        match outcomes {
            Outcomes::Done { first, count, data, ends, failed, attempts } => {
                let (end, from) = (first + count, first.max(self.next));
                let batch = Batch { first, count, data, ends, failed };
                let Batch { first: start, data, ends, .. } =
                    if from > first { batch.part(from, end - from) } else { batch };
                (
                    first,
                    end,
                    Body::ItemsDone(ItemsDone { job: self.wire_number, first: start, data, ends, failed, attempts }),
                )
            }
            Outcomes::Failed { first, count, failure } => {
                let (end, start, failure) = (first + count, first.max(self.next), Some(*failure));
                let failed = ItemsFailed { job: self.wire_number, first: start, failure, count: end - start };
                (first, end, Body::ItemsFailed(Box::new(failed)))
            }
        }
    }

    /// Returns whether it has read nothing for longer than `patience`, in ns, although outcomes wait.
    fn is_stalled(&mut self, now: u64, patience: u64) -> bool {
        let unread_bytes = self.unread_bytes();
        if unread_bytes == 0 || unread_bytes != self.unread_bytes {
            (self.unread_bytes, self.changed_at) = (unread_bytes, now);
        }
        now.saturating_sub(self.changed_at) > patience
    }
}

/// How many bytes of outcomes one read may return, if they are in several parts.
const READ_BYTES: u64 = 1 << 20;

/// More outcomes are read for a client when no more bytes than this wait to be sent to it.
const LOW_OUTCOMES: usize = 256 << 10;

/// The part of the memory that outcomes for attached clients may take.
const SHARE: u64 = 8;
/// How often to check whether the clients that fill it read anything, in ns.
const CHECK_NS: u64 = 500_000_000;

impl Readers {
    /// Handles messages of a session that reads a job. The first message names the job.
    pub(super) fn handle_messages(
        &mut self,
        tracked: &TrackedStore,
        round: &Round,
        client: &Client,
        id: ClientId,
        messages: Vec<ClientMessage>,
    ) {
        let mut begins = !client.begun;
        for message in messages {
            match (self.all.get_mut(&id), message.body) {
                (Some(attached), Some(client_message::Body::AwaitingItems(awaiting))) => {
                    attached.only_waits = awaiting.waits
                }
                (Some(_), _) => {
                    return self.end(id, Err(Status::invalid_argument("only AwaitingItems may follow Attach")));
                }
                (None, Some(client_message::Body::Attach(attach))) if std::mem::take(&mut begins) => {
                    match begin(tracked, round, client, &attach) {
                        Ok(attached) => {
                            self.all.insert(id, attached);
                            self.serve(tracked, round, id);
                        }
                        Err(status) => return self.ends.push((id, Err(status))),
                    }
                }
                // Messages after the end of a session are ignored, also those that could begin one.
                (None, _) => return,
            }
        }
    }

    /// Handles the end of a session, whatever its reason.
    pub(super) fn leave(&mut self, id: ClientId) {
        self.all.remove(&id);
    }

    /// Reports to the coordinator which tasks wait for unfinished jobs, so that it lends their slots.
    pub(super) fn lend(&self, tracked: &TrackedStore, round: &mut Round) {
        let is_unfinished = |job| tracked.job(job).is_some_and(|job| job.ended.is_none());
        let waits = |attached: &&ServedReader| attached.only_waits && attached.wait && is_unfinished(attached.job);
        round.coordinator.lend_to_attached(self.all.values().filter(waits).filter_map(|at| at.ticket).collect());
    }

    /// Checks queues after some have run low.
    pub(super) fn check_queues(&mut self, tracked: &TrackedStore, round: &Round) {
        (self.held, self.checked_at) = (self.held(), round.now);
        if self.held > 2 * share(round.memory.bound) {
            self.end_stalled(round);
        }
        self.serve_all(tracked, round);
    }

    /// Returns when to check the sessions, if they fill their share of this much memory.
    pub(super) fn next_check(&self, memory: u64) -> Option<u64> {
        (self.held > share(memory)).then_some(self.checked_at.saturating_add(CHECK_NS))
    }

    /// Checks queues when it is time.
    pub(super) fn check_if_due(&mut self, tracked: &TrackedStore, round: &Round) {
        if self.next_check(round.memory.bound).is_some_and(|at| at <= round.now) {
            self.check_queues(tracked, round);
        }
    }

    pub(super) fn serve_all(&mut self, tracked: &TrackedStore, round: &Round) {
        let all: Vec<ClientId> = self.all.keys().copied().collect();
        all.into_iter().for_each(|id| self.serve(tracked, round, id));
    }

    /// Serves the readers of these jobs, which have changed.
    pub(super) fn serve_jobs(&mut self, tracked: &TrackedStore, round: &Round, jobs: &[u64]) {
        if jobs.is_empty() || self.all.is_empty() {
            return;
        }
        let to_serve = self.all.iter().filter(|(_, attached)| jobs.contains(&attached.job));
        let to_serve: Vec<ClientId> = to_serve.map(|(id, _)| *id).collect();
        to_serve.into_iter().for_each(|id| self.serve(tracked, round, id));
    }

    /// Handles outcomes that were read.
    pub(super) fn handle_outcomes(
        &mut self,
        tracked: &TrackedStore,
        round: &Round,
        id: ClientId,
        read: Read<Outcomes>,
    ) {
        let Some(attached) = self.all.get_mut(&id) else { return };
        attached.reading = None;
        for outcomes in read.parts {
            let (first, end, body) = attached.rest_of(outcomes);
            attached.skipped_items |= first > attached.next;
            attached.next = end;
            attached.send(body);
        }
        match read.unread {
            Some(unread) => self.end(id, Err(cannot_read(unread))),
            None => self.serve(tracked, round, id),
        }
    }

    /// Returns how many bytes wait for them or are being read.
    pub(super) fn held(&self) -> u64 {
        self.all.values().map(ServedReader::held).sum()
    }

    fn end_stalled(&mut self, round: &Round) {
        let (now, patience) = (round.now, round.memory.patience);
        let stalled = self.all.iter_mut().filter_map(|(&id, at)| at.is_stalled(now, patience).then_some(id));
        for id in stalled.collect::<Vec<_>>() {
            let why =
                "the memory for outcomes is full, and this client does not read its own; attach again when it does";
            self.end(id, Err(Status::resource_exhausted(why)));
        }
    }

    /// Begins to read the next outcomes, if they exist and there is room. Otherwise reports how the job has ended, if it has.
    fn serve(&mut self, tracked: &TrackedStore, round: &Round, id: ClientId) {
        let (held, share) = (self.held, share(round.memory.bound));
        let Some(attached) = self.all.get_mut(&id) else { return };
        let job = tracked.job(attached.job);
        if let Some(job) = job.filter(|job| attached.partial && !tracked.is_received(job)) {
            // It attached before the job was complete: now it gets the number of items.
            attached.partial = false;
            attached.send(Body::DetachedJob(Box::new(tracked.describe(job))));
        }
        let has_room = match held {
            held if held <= share => attached.outgoing.waiting() <= LOW_OUTCOMES,
            held if held <= 2 * share => attached.unread_bytes() == 0,
            _ => false,
        };
        if attached.reading.is_some() || !has_room {
            return;
        }
        let Some(job) = job else {
            return self.end(id, Err(Status::not_found("the job was discarded")));
        };
        let ended = tracked.ended(job);
        // A client that waits gets outcomes in order, without gaps.
        let skips = ended.is_some() || !attached.wait;
        if let Some(reading) = tracked.store().read_outcomes(job.number, attached.next, skips, READ_BYTES) {
            attached.reading = Some(reading.bytes());
            self.held += reading.bytes();
            return round.link.read(reading, move |read| ReadResult::Outcomes(id, read));
        }
        let wire_number = attached.wire_number;
        let last = match ended {
            Some(Ended::Failed) => Body::PoolFailed(Box::new(PoolFailed { failure: job.failure.as_deref().cloned() })),
            // The job ended after items were skipped, so the client would miss their outcomes.
            Some(Ended::Finished) if attached.skipped_items && !attached.wait => return self.end(id, Ok(())),
            Some(how) => Body::JobEnded(JobEnded { job: wire_number, cancelled: how == Ended::Cancelled }),
            None if attached.wait => return,
            None => return self.end(id, Ok(())),
        };
        attached.send(last);
        self.end(id, Ok(()));
    }

    /// Ends a session. If it has finished, `PoolClosed` is its last message.
    fn end(&mut self, id: ClientId, end: Result<(), Status>) {
        let Some(attached) = self.all.remove(&id) else { return };
        if end.is_ok() {
            attached.send(Body::PoolClosed(PoolClosed {}));
        }
        self.ends.push((id, end));
    }
}

/// Begins to serve a client: sends a welcome and a description of the job.
fn begin(tracked: &TrackedStore, round: &Round, client: &Client, attach: &Attach) -> Result<ServedReader, Status> {
    let (session, name) = (&client.session, &attach.name);
    let job = tracked.store().find(session.principal.tenant(), name).ok_or_else(|| not_found(name))?;
    check_id(job, &attach.id)?;
    let ticket = attach.ticket.clone().map(Ticket::try_from).transpose();
    let ticket = ticket.map_err(|refused| Status::invalid_argument(refused.to_string()))?;
    let attached = ServedReader {
        outgoing: session.outgoing.clone(),
        job: job.number,
        wire_number: attach.job,
        next: attach.first,
        wait: attach.wait,
        partial: tracked.is_received(job),
        skipped_items: false,
        reading: None,
        unread_bytes: 0,
        changed_at: round.now,
        ticket,
        only_waits: false,
    };
    attached.outgoing.set_low(LOW_OUTCOMES);
    attached.send(Body::Welcome(welcome(round, 0)));
    attached.send(Body::DetachedJob(Box::new(tracked.describe(job))));
    Ok(attached)
}

/// Returns how many bytes all sessions together may hold, of this much memory.
fn share(memory: u64) -> u64 {
    memory / SHARE
}

fn cannot_read(Unread { first, count, error }: Unread) -> Status {
    let last = first + count - 1;
    match error {
        ReadError::Unavailable(why) => {
            Status::unavailable(format!("outcomes of items {first} to {last} cannot be read: {why}"))
        }
        ReadError::Lost(why) => Status::data_loss(format!("outcomes of items {first} to {last} are lost: {why}")),
    }
}
