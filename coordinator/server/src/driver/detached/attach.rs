//! Who picks up the outcomes of a job. They are read from disk when there is room for them in the stream's queue. All streams
//! together may hold a share of the memory: beyond that only those are served that have taken everything, up to twice as much. Then
//! streams that take nothing for a while are ended: what they have not taken is still on disk.

use farpool_common::log::info;
use farpool_coordinator::convert::{Batch, Ticket};
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{
    ClientEvent, ClientMessage, DetachedState, ItemsDone, ItemsFailed, JobEnded, PoolFailed, client_message,
};
use farpool_store::{Ended, Job, Outcomes, Phase, Read, ReadError};
use tokio::sync::mpsc;
use tonic::Status;

use super::super::super::end::End;
use super::super::super::link::{Joins, Said, Says, StreamId, WasRead, shutting_down};
use super::super::super::sessions::LOW_OUTCOMES;
use super::super::Driver;
use super::begin::no_journal;

/// A stream of a job's outcomes.
pub(super) struct Attached {
    pub(super) outgoing: Outgoing<ClientEvent>,
    turns: mpsc::Sender<()>,
    job: u64,
    /// The job's number in messages.
    named: u64,
    /// The first item whose outcome was not read.
    next: u64,
    /// Whether to wait for what is not there.
    wait: bool,
    /// It was told of a job that had not all its items.
    partial: bool,
    /// Outcomes were passed over that were not there.
    lacks: bool,
    /// Bytes that are being read for it, if some are.
    reading: Option<u64>,
    /// What it had not taken when something last changed there, in bytes, and when that was.
    untaken: u64,
    moved_at: u64,
    /// What a slot is lent for while the client waits, if an item's task started it.
    ticket: Option<Ticket>,
    /// The client does nothing but wait for outcomes.
    awaits: bool,
}

impl Attached {
    pub(super) fn held(&self) -> u64 {
        self.outgoing.bytes() as u64 + self.reading.unwrap_or(0)
    }

    /// Of these outcomes those that it was not told: the index of the first of all, the one behind the last, and a message.
    fn rest_of(&self, outcomes: Outcomes) -> (u64, u64, Body) {
        match outcomes {
            Outcomes::Done { first, count, data, ends, failed, attempts } => {
                let (end, from) = (first + count, first.max(self.next));
                let batch = Batch { first, count, data, ends, failed };
                let Batch { first: start, data, ends, .. } =
                    if from > first { batch.part(from, end - from) } else { batch };
                (first, end, Body::ItemsDone(ItemsDone { job: self.named, first: start, data, ends, failed, attempts }))
            }
            Outcomes::Failed { first, count, failure } => {
                let (end, start, failure) = (first + count, first.max(self.next), Some(*failure));
                let failed = ItemsFailed { job: self.named, first: start, failure, count: end - start };
                (first, end, Body::ItemsFailed(Box::new(failed)))
            }
        }
    }

    /// Whether it has taken nothing of what is there for so long, in ns.
    fn stands_still(&mut self, now: u64, patience: u64) -> bool {
        let untaken = self.outgoing.bytes() as u64;
        if untaken == 0 || untaken != self.untaken {
            (self.untaken, self.moved_at) = (untaken, now);
        }
        now.saturating_sub(self.moved_at) > patience
    }
}

/// Bytes of outcomes that are read in one go, if they are in several parts.
const READ_BYTES: u64 = 1 << 20;

/// The part of the memory that outcomes for those who have attached may take up.
const SHARE: u64 = 8;
/// How often to look whether those that fill it take anything, in ns.
const LOOK_NS: u64 = 500_000_000;

impl Driver {
    pub(in super::super) fn attach_joins(&mut self, joins: Joins<ClientEvent, ClientMessage, StreamId>) {
        let Joins { outgoing, turns, principal, messages, id: reply, .. } = joins;
        outgoing.for_one_connection();
        let attach = match &messages[..] {
            [ClientMessage { body: Some(client_message::Body::Attach(attach)) }] => Ok(attach.clone()),
            _ => Err(Status::invalid_argument("an Attach stream must begin with one Attach")),
        };
        let begun = attach.and_then(|attach| {
            if self.drain.is_some() {
                return Err(shutting_down());
            }
            let store = self.detached.store.as_ref().ok_or_else(no_journal)?;
            let job = store.find(principal.tenant(), &attach.name).ok_or_else(|| not_found(&attach.name))?;
            check_id(job, &attach.id)?;
            let ticket = attach.ticket.map(Ticket::try_from).transpose();
            let ticket = ticket.map_err(|refused| Status::invalid_argument(refused.to_string()))?;
            let described = self.describe(job);
            let is_partial = described.state() == DetachedState::Receiving;
            outgoing.push(ClientEvent { body: Some(Body::DetachedJob(Box::new(described))) });
            let (named, next, wait) = (job.known.named, attach.first, attach.wait);
            let (outgoing, job, partial) = (outgoing.clone(), job.number, is_partial);
            let (lacks, awaits, reading, untaken, moved_at) = (false, false, None, 0, self.now);
            Ok(Attached {
                outgoing,
                turns,
                job,
                named,
                next,
                wait,
                partial,
                lacks,
                reading,
                untaken,
                moved_at,
                ticket,
                awaits,
            })
        });
        match begun {
            Ok(attached) => {
                let id = self.detached.stream_id();
                let _ = attached.turns.try_send(());
                self.detached.attached.insert(id, attached);
                let _ = reply.send(id);
                self.serve(id);
                // That it is gone is not said twice.
                if outgoing.is_gone() {
                    self.detached.attached.remove(&id);
                }
            }
            Err(status) => outgoing.fail(status),
        }
    }

    pub(in super::super) fn attach_says(
        &mut self,
        Says { id, said, passed: _passed, .. }: Says<ClientMessage, StreamId>,
    ) {
        let Some(attached) = self.detached.attached.get_mut(&id) else { return };
        match said {
            // Without messages it is an acknowledgement.
            Said::Messages { messages, .. } => {
                for message in messages {
                    let Some(client_message::Body::AwaitingItems(awaiting)) = message.body else {
                        let why = Status::invalid_argument("only AwaitingItems may follow Attach");
                        return self.end_attached(id, Err(why));
                    };
                    attached.awaits = awaiting.waits;
                }
                let _ = attached.turns.try_send(());
            }
            // It has nothing more to say. Whether it still reads is seen by its queue.
            Said::Gone(End::Meant) => {}
            Said::Gone(End::Broken(_)) => self.end_attached(id, Ok(())),
            Said::Gone(End::Final(why)) => self.end_attached(id, Err(why)),
        }
    }

    /// Tells the coordinator which tasks wait for unfinished jobs, so that their slots are lent.
    pub(in super::super) fn lend_to_attached(&mut self) {
        let Some(store) = &self.detached.store else { return };
        let is_unfinished = |job| store.job(job).is_some_and(|job| !matches!(job.phase(), Phase::Ended(_)));
        let waits = |attached: &&Attached| attached.awaits && attached.wait && is_unfinished(attached.job);
        let tickets = self.detached.attached.values().filter(waits).filter_map(|attached| attached.ticket).collect();
        self.coordinator.lend_to_attached(tickets);
    }

    /// The queues of some have run low, or nobody reads them any more.
    pub(in super::super) fn look_at_attached(&mut self) {
        self.detached.attached.retain(|_, attached| !attached.outgoing.is_gone());
        self.detached.attached_held = self.detached.attached.values().map(Attached::held).sum();
        self.detached.attached_seen_at = self.now;
        if self.detached.attached_held > 2 * self.attached_share() {
            self.end_attached_that_stand_still();
        }
        self.serve_all();
    }

    fn attached_share(&self) -> u64 {
        self.memory.bound() / SHARE
    }

    /// When to look at those that have attached, if they fill their share.
    pub(super) fn next_look_at_attached(&self) -> Option<u64> {
        let is_crowded = self.detached.attached_held > self.attached_share();
        is_crowded.then_some(self.detached.attached_seen_at.saturating_add(LOOK_NS))
    }

    /// Looks at them when it is time.
    pub(super) fn tend_attached(&mut self) {
        if self.next_look_at_attached().is_some_and(|at| at <= self.now) {
            self.look_at_attached();
        }
    }

    fn end_attached_that_stand_still(&mut self) {
        let (now, patience) = (self.now, self.memory.patience());
        let still =
            self.detached.attached.iter_mut().filter_map(|(&id, at)| at.stands_still(now, patience).then_some(id));
        for id in still.collect::<Vec<_>>() {
            let why =
                "the memory for outcomes is full, and this client does not read its own; attach again when it does";
            self.end_attached(id, Err(Status::resource_exhausted(why)));
        }
    }

    pub(super) fn serve_all(&mut self) {
        let all: Vec<StreamId> = self.detached.attached.keys().copied().collect();
        all.into_iter().for_each(|id| self.serve(id));
    }

    /// There is news of these jobs.
    pub(super) fn serve_jobs(&mut self, jobs: &[u64]) {
        if jobs.is_empty() || self.detached.attached.is_empty() {
            return;
        }
        let to_serve = self.detached.attached.iter().filter(|(_, attached)| jobs.contains(&attached.job));
        let to_serve: Vec<StreamId> = to_serve.map(|(id, _)| *id).collect();
        to_serve.into_iter().for_each(|id| self.serve(id));
    }

    /// Has the next outcomes read, if there is room for them and they are there; or says how the job has ended.
    fn serve(&mut self, id: StreamId) {
        self.describe_again(id);
        let (held, share) = (self.detached.attached_held, self.attached_share());
        let Some(attached) = self.detached.attached.get_mut(&id) else { return };
        let Some(store) = &self.detached.store else { return };
        let has_room = match held {
            held if held <= share => attached.outgoing.waiting() <= LOW_OUTCOMES,
            held if held <= 2 * share => attached.outgoing.bytes() == 0,
            _ => false,
        };
        if attached.reading.is_some() || !has_room {
            return;
        }
        let Some(job) = store.job(attached.job) else {
            return self.end_attached(id, Err(Status::not_found("the job was discarded")));
        };
        let ended = match job.phase() {
            Phase::Ended(ended) if !self.detached.ending.contains(&attached.job) => Some(ended),
            _ => None,
        };
        // Who waits is sent what is missing before what comes behind it.
        let skips = ended.is_some() || !attached.wait;
        if let Some(reading) = store.read_outcomes(job.number, attached.next, skips, READ_BYTES) {
            attached.reading = Some(reading.bytes());
            self.detached.attached_held += reading.bytes();
            return self.link.read(reading, move |read| WasRead::Outcomes(id, read));
        }
        let named = attached.named;
        let last = match ended {
            Some(Ended::Failed) => {
                let failure = job.failure.as_deref().cloned();
                Body::PoolFailed(Box::new(PoolFailed { failure }))
            }
            // It has ended since then, and what is missing would have to be there.
            Some(Ended::Finished) if attached.lacks && !attached.wait => return self.end_attached(id, Ok(())),
            Some(how) => Body::JobEnded(JobEnded { job: named, cancelled: how == Ended::Cancelled }),
            None if attached.wait => return,
            None => return self.end_attached(id, Ok(())),
        };
        attached.outgoing.push(ClientEvent { body: Some(last) });
        self.end_attached(id, Ok(()));
    }

    /// Tells who came before a job was whole how long it is: outcomes follow.
    fn describe_again(&mut self, id: StreamId) {
        let Some(attached) = self.detached.attached.get(&id).filter(|attached| attached.partial) else { return };
        let job = self.detached.store.as_ref().and_then(|store| store.job(attached.job));
        let Some(described) = job.map(|job| self.describe(job)) else { return };
        if described.state() != DetachedState::Receiving
            && let Some(attached) = self.detached.attached.get_mut(&id)
        {
            attached.partial = false;
            attached.outgoing.push(ClientEvent { body: Some(Body::DetachedJob(Box::new(described))) });
        }
    }

    /// Outcomes have been read.
    pub(super) fn send_outcomes(&mut self, id: StreamId, read: Read<Outcomes>) {
        let Some(attached) = self.detached.attached.get_mut(&id) else { return };
        attached.reading = None;
        for outcomes in read.parts {
            let (there, end, body) = attached.rest_of(outcomes);
            attached.lacks |= there > attached.next;
            attached.next = end;
            attached.outgoing.push(ClientEvent { body: Some(body) });
        }
        if let Some(unread) = read.unread {
            let (first, last) = (unread.first, unread.first + unread.count - 1);
            return self.end_attached(
                id,
                Err(match unread.error {
                    ReadError::Unavailable(why) => {
                        Status::unavailable(format!("outcomes of items {first} to {last} cannot be read: {why}"))
                    }
                    ReadError::Lost(why) => {
                        Status::data_loss(format!("outcomes of items {first} to {last} are lost: {why}"))
                    }
                }),
            );
        }
        self.serve(id);
    }

    fn end_attached(&mut self, id: StreamId, end: Result<(), Status>) {
        let Some(attached) = self.detached.attached.remove(&id) else { return };
        match end {
            Ok(()) => attached.outgoing.finish(),
            Err(status) => {
                info!(self.link.log, reason = status.message(), "attach stream closed");
                attached.outgoing.fail(status);
            }
        }
    }
}

/// Whoever has known a job by its id means no other one that has its name by now.
pub(super) fn check_id(job: &Job, id: &[u8]) -> Result<(), Status> {
    if id.is_empty() || job.known.id == id {
        return Ok(());
    }
    Err(Status::not_found(format!("the job was discarded, and another one is called {:?} now", job.name())))
}

pub(super) fn not_found(name: &str) -> Status {
    Status::not_found(format!("there is no detached job {name:?}"))
}
