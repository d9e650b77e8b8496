//! Serves the clients that attach to jobs. Outcomes are read from disk when a stream's queue has room. All streams together may hold a
//! share of the memory. Beyond it, up to twice the share, only streams that have taken everything are served. Beyond that, streams that take
//! nothing for a while are closed: their outcomes are still on disk.

use std::collections::BTreeMap;

use farpool_common::log::info;
use farpool_coordinator::Principal;
use farpool_coordinator::convert::{Batch, Ticket};
use farpool_net::Outgoing;
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{
    Attach, ClientEvent, ClientMessage, ItemsDone, ItemsFailed, JobEnded, PoolFailed, client_message,
};
use farpool_store::{Ended, Outcomes, Read, ReadError, Unread};
use tokio::sync::mpsc;
use tonic::Status;

use super::super::super::end::End;
use super::super::super::link::{Joins, Said, Says, StreamId, WasRead};
use super::super::super::refusal::shutting_down;
use super::super::super::sessions::LOW_OUTCOMES;
use super::super::round::Round;
use super::checks::{check_id, not_found};
use super::keeper::Keeper;

/// A stream of Attach that begins.
pub(super) type AttachJoins = Joins<ClientEvent, ClientMessage, StreamId>;

/// All attached clients.
#[derive(Default)]
pub(super) struct Readers {
    all: BTreeMap<StreamId, Attached>,
    last_stream: u64,
    /// How many bytes they hold together, as of this round.
    held: u64,
    /// When they were last checked.
    seen_at: u64,
}

/// A stream of a job's outcomes.
struct Attached {
    outgoing: Outgoing<ClientEvent>,
    turns: mpsc::Sender<()>,
    job: u64,
    /// The job's number in messages.
    named: u64,
    /// The first item whose outcome was not read from disk.
    next: u64,
    /// Whether to wait for outcomes that are not there.
    wait: bool,
    /// The job was incomplete when it was described.
    partial: bool,
    /// Items without an outcome were skipped.
    lacks: bool,
    /// How many bytes are being read for it, if any.
    reading: Option<u64>,
    /// How many bytes it had not taken at the last change, and when that was.
    untaken: u64,
    moved_at: u64,
    /// The ticket for the slot that is lent while the client waits, if an item's task started it.
    ticket: Option<Ticket>,
    /// The client only waits for outcomes.
    awaits: bool,
}

impl Attached {
    fn held(&self) -> u64 {
        self.outgoing.bytes() as u64 + self.reading.unwrap_or(0)
    }

    /// Converts outcomes to a message, without those it was sent. Returns also the first index of all, and the index after the last.
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

    /// Returns whether it has taken nothing for longer than `patience`, in ns, although something waits.
    fn stands_still(&mut self, now: u64, patience: u64) -> bool {
        let untaken = self.outgoing.bytes() as u64;
        if untaken == 0 || untaken != self.untaken {
            (self.untaken, self.moved_at) = (untaken, now);
        }
        now.saturating_sub(self.moved_at) > patience
    }
}

/// How many bytes of outcomes one read takes, if they are in several parts.
const READ_BYTES: u64 = 1 << 20;

/// The part of the memory that outcomes for attached clients may take.
const SHARE: u64 = 8;
/// How often to check whether those that fill it take anything, in ns.
const LOOK_NS: u64 = 500_000_000;

impl Readers {
    pub(super) fn joins(&mut self, keeper: &Keeper, round: &Round, joins: AttachJoins) {
        let Joins { outgoing, turns, principal, messages, id: reply, .. } = joins;
        outgoing.for_one_connection();
        let attach = match &messages[..] {
            [ClientMessage { body: Some(client_message::Body::Attach(attach)) }] => Ok(attach),
            _ => Err(Status::invalid_argument("an Attach stream must begin with one Attach")),
        };
        let begun = attach.and_then(|attach| begin(keeper, round, &principal, attach, (outgoing.clone(), turns)));
        match begun {
            Ok(attached) => {
                self.last_stream += 1;
                let id = StreamId(self.last_stream);
                let _ = attached.turns.try_send(());
                self.all.insert(id, attached);
                let _ = reply.send(id);
                self.serve(keeper, round, id);
                // The edge notices a lost connection only once.
                if outgoing.is_gone() {
                    self.all.remove(&id);
                }
            }
            Err(status) => outgoing.fail(status),
        }
    }

    pub(super) fn says(
        &mut self,
        round: &Round,
        Says { id, said, passed: _passed, .. }: Says<ClientMessage, StreamId>,
    ) {
        let Some(attached) = self.all.get_mut(&id) else { return };
        match said {
            // A frame without messages is an acknowledgement.
            Said::Messages { messages, .. } => {
                for message in messages {
                    let Some(client_message::Body::AwaitingItems(awaiting)) = message.body else {
                        let why = Status::invalid_argument("only AwaitingItems may follow Attach");
                        return self.end(round, id, Err(why));
                    };
                    attached.awaits = awaiting.waits;
                }
                let _ = attached.turns.try_send(());
            }
            // It has nothing more to send. Its queue shows whether it still reads.
            Said::Gone(End::Meant) => {}
            Said::Gone(End::Broken(_)) => self.end(round, id, Ok(())),
            Said::Gone(End::Final(why)) => self.end(round, id, Err(why)),
        }
    }

    /// Tells the coordinator which tasks wait for unfinished jobs, so that it lends their slots.
    pub(super) fn lend(&self, keeper: &Keeper, round: &mut Round) {
        let is_unfinished = |job| keeper.job(job).is_some_and(|job| job.ended.is_none());
        let waits = |attached: &&Attached| attached.awaits && attached.wait && is_unfinished(attached.job);
        round.coordinator.lend_to_attached(self.all.values().filter(waits).filter_map(|at| at.ticket).collect());
    }

    /// Checks queues: some have run low or lost their reader.
    pub(super) fn look_at_queues(&mut self, keeper: &Keeper, round: &Round) {
        self.all.retain(|_, attached| !attached.outgoing.is_gone());
        (self.held, self.seen_at) = (self.holds(), round.now);
        if self.held > 2 * share(round.memory.bound) {
            self.end_those_that_stand_still(round);
        }
        self.serve_all(keeper, round);
    }

    /// Returns when to check them, if they fill their share of so much memory.
    pub(super) fn next_look(&self, memory: u64) -> Option<u64> {
        (self.held > share(memory)).then_some(self.seen_at.saturating_add(LOOK_NS))
    }

    /// Checks them when it is time.
    pub(super) fn tend(&mut self, keeper: &Keeper, round: &Round) {
        if self.next_look(round.memory.bound).is_some_and(|at| at <= round.now) {
            self.look_at_queues(keeper, round);
        }
    }

    pub(super) fn serve_all(&mut self, keeper: &Keeper, round: &Round) {
        let all: Vec<StreamId> = self.all.keys().copied().collect();
        all.into_iter().for_each(|id| self.serve(keeper, round, id));
    }

    /// Serves the readers of these jobs: something has changed.
    pub(super) fn serve_jobs(&mut self, keeper: &Keeper, round: &Round, jobs: &[u64]) {
        if jobs.is_empty() || self.all.is_empty() {
            return;
        }
        let to_serve = self.all.iter().filter(|(_, attached)| jobs.contains(&attached.job));
        let to_serve: Vec<StreamId> = to_serve.map(|(id, _)| *id).collect();
        to_serve.into_iter().for_each(|id| self.serve(keeper, round, id));
    }

    /// Handles outcomes that were read.
    pub(super) fn outcomes_were_read(&mut self, keeper: &Keeper, round: &Round, id: StreamId, read: Read<Outcomes>) {
        let Some(attached) = self.all.get_mut(&id) else { return };
        attached.reading = None;
        for outcomes in read.parts {
            let (there, end, body) = attached.rest_of(outcomes);
            attached.lacks |= there > attached.next;
            attached.next = end;
            attached.outgoing.push(ClientEvent { body: Some(body) });
        }
        match read.unread {
            Some(unread) => self.end(round, id, Err(cannot_read(unread))),
            None => self.serve(keeper, round, id),
        }
    }

    /// Returns how many bytes wait for them or are being read.
    pub(super) fn holds(&self) -> u64 {
        self.all.values().map(Attached::held).sum()
    }

    /// Ends all streams: the server shuts down.
    pub(super) fn dismiss(&mut self) {
        let all = std::mem::take(&mut self.all).into_values();
        all.for_each(|attached| attached.outgoing.fail(shutting_down()));
    }

    fn end_those_that_stand_still(&mut self, round: &Round) {
        let (now, patience) = (round.now, round.memory.patience);
        let still = self.all.iter_mut().filter_map(|(&id, at)| at.stands_still(now, patience).then_some(id));
        for id in still.collect::<Vec<_>>() {
            let why =
                "the memory for outcomes is full, and this client does not read its own; attach again when it does";
            self.end(round, id, Err(Status::resource_exhausted(why)));
        }
    }

    /// Begins to read the next outcomes, if they exist and there is room. Otherwise tells how the job has ended, if it has.
    fn serve(&mut self, keeper: &Keeper, round: &Round, id: StreamId) {
        let (held, share) = (self.held, share(round.memory.bound));
        let Some(attached) = self.all.get_mut(&id) else { return };
        let job = keeper.job(attached.job);
        if let Some(job) = job.filter(|job| attached.partial && !keeper.is_received(job)) {
            // It attached before the job was complete: now it is told the number of items.
            attached.partial = false;
            attached.outgoing.push(ClientEvent { body: Some(Body::DetachedJob(Box::new(keeper.describe(job)))) });
        }
        let has_room = match held {
            held if held <= share => attached.outgoing.waiting() <= LOW_OUTCOMES,
            held if held <= 2 * share => attached.outgoing.bytes() == 0,
            _ => false,
        };
        if attached.reading.is_some() || !has_room {
            return;
        }
        let Some(job) = job else {
            return self.end(round, id, Err(Status::not_found("the job was discarded")));
        };
        let ended = keeper.ended(job);
        // A client that waits gets outcomes in order, without gaps.
        let skips = ended.is_some() || !attached.wait;
        if let Some(reading) = keeper.store().read_outcomes(job.number, attached.next, skips, READ_BYTES) {
            attached.reading = Some(reading.bytes());
            self.held += reading.bytes();
            return round.link.read(reading, move |read| WasRead::Outcomes(id, read));
        }
        let named = attached.named;
        let last = match ended {
            Some(Ended::Failed) => Body::PoolFailed(Box::new(PoolFailed { failure: job.failure.as_deref().cloned() })),
            // The job ended after items were skipped, so the client would miss their outcomes.
            Some(Ended::Finished) if attached.lacks && !attached.wait => return self.end(round, id, Ok(())),
            Some(how) => Body::JobEnded(JobEnded { job: named, cancelled: how == Ended::Cancelled }),
            None if attached.wait => return,
            None => return self.end(round, id, Ok(())),
        };
        attached.outgoing.push(ClientEvent { body: Some(last) });
        self.end(round, id, Ok(()));
    }

    fn end(&mut self, round: &Round, id: StreamId, end: Result<(), Status>) {
        let Some(attached) = self.all.remove(&id) else { return };
        match end {
            Ok(()) => attached.outgoing.finish(),
            Err(status) => {
                info!(round.link.log, reason = status.message(), "attach stream closed");
                attached.outgoing.fail(status);
            }
        }
    }
}

/// Begins to serve a client: describes the job to it.
fn begin(
    keeper: &Keeper,
    round: &Round,
    principal: &Principal,
    attach: &Attach,
    (outgoing, turns): (Outgoing<ClientEvent>, mpsc::Sender<()>),
) -> Result<Attached, Status> {
    if round.drains {
        return Err(shutting_down());
    }
    let job = keeper.store().find(principal.tenant(), &attach.name).ok_or_else(|| not_found(&attach.name))?;
    check_id(job, &attach.id)?;
    let ticket = attach.ticket.clone().map(Ticket::try_from).transpose();
    let ticket = ticket.map_err(|refused| Status::invalid_argument(refused.to_string()))?;
    outgoing.push(ClientEvent { body: Some(Body::DetachedJob(Box::new(keeper.describe(job)))) });
    Ok(Attached {
        outgoing,
        turns,
        job: job.number,
        named: job.known.named,
        next: attach.first,
        wait: attach.wait,
        partial: keeper.is_received(job),
        lacks: false,
        reading: None,
        untaken: 0,
        moved_at: round.now,
        ticket,
        awaits: false,
    })
}

/// Returns how many bytes all of them may hold, if there is so much memory.
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
