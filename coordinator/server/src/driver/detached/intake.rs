//! Receives jobs: new ones, and those whose stream broke. A job runs only when it is complete, and is dropped if its client does not
//! continue.
//!
//! Methods return the jobs that were dropped, so that their readers can be told.

use std::collections::{BTreeMap, VecDeque};

use farpool_common::log::{info, warn};
use farpool_coordinator::Principal;
use farpool_coordinator::convert::{OfOneJob, of_one_job};
use farpool_proto::v1::client_event::Body;
use farpool_proto::v1::{ClientEvent, ClientMessage, Detach, Durable, client_message};
use farpool_store::{Entry, JobStore, JobStoreErrorKind};
use prost::Message;
use tonic::Status;

use super::super::super::end::End;
use super::super::super::link::{Joins, Said, Says, StreamId, shown};
use super::super::super::refusal::shutting_down;
use super::super::round::Round;
use super::checks::{check_opening, digest_of, known, status};
use super::durable::Then;
use super::keeper::Keeper;
use super::receiving::{Receiving, Stream};

/// A stream of Detach that begins.
pub(super) type DetachJoins = Joins<ClientEvent, ClientMessage, StreamId>;

/// All jobs that are incomplete, or not known to be complete.
#[derive(Default)]
pub(super) struct Intake {
    jobs: BTreeMap<u64, Receiving>,
    /// The job of each stream.
    streams: BTreeMap<StreamId, u64>,
    last_stream: u64,
    /// Streams that wait until the store knows whether it has room for their jobs.
    parked: VecDeque<DetachJoins>,
}

/// Why a message is not stored.
enum NotTaken {
    /// There is no room at the moment.
    Yet(ClientMessage),
    Ever(Status),
    /// There will be no room: the job is dropped.
    Full(Status),
}

impl Intake {
    /// Handles the start of a Detach stream.
    pub(super) fn joins(&mut self, keeper: &mut Keeper, round: &mut Round, joins: DetachJoins) -> Option<u64> {
        self.begin_or_park(keeper, round, joins, None)
    }

    /// Handles messages of a Detach stream.
    pub(super) fn says(
        &mut self,
        keeper: &mut Keeper,
        round: &mut Round,
        Says { id, said, passed: _passed, .. }: Says<ClientMessage, StreamId>,
    ) -> Option<u64> {
        let &job = self.streams.get(&id)?;
        let receiving = self.jobs.get_mut(&job)?;
        match said {
            Said::Messages { messages, partial } => {
                receiving.parked.extend(messages);
                (receiving.partial, receiving.waits) = (partial as u64, true);
                return self.take_what_came(keeper, round, job);
            }
            // It has sent everything, and waits for the last answer.
            Said::Gone(End::Meant) if receiving.input_ended && receiving.parked.is_empty() => {}
            Said::Gone(_) => self.lose_stream(job, round.now),
        }
        None
    }

    /// Expects the rest of a job that was not complete when the coordinator ended.
    pub(super) fn expect_rest(&mut self, job: u64, now: u64) {
        self.jobs.insert(job, Receiving { since: now, ..Receiving::default() });
    }

    /// Checks for streams that lost their reader.
    pub(super) fn look_at_queues(&mut self, now: u64) {
        let gone = |receiving: &Receiving| receiving.stream.as_ref().is_some_and(Stream::is_gone);
        self.those(gone).into_iter().for_each(|job| self.lose_stream(job, now));
    }

    /// Retries what waits for room: there may be some again.
    pub(super) fn take_parked(&mut self, keeper: &mut Keeper, round: &mut Round) -> Vec<u64> {
        let cannot_keep = keeper.cannot_keep(round.now);
        let mut gone = Vec::new();
        for joins in std::mem::take(&mut self.parked) {
            gone.extend(self.begin_or_park(keeper, round, joins, cannot_keep.clone()));
        }
        let waiting =
            |receiving: &Receiving| !receiving.parked.is_empty() || (receiving.input_ended && !receiving.completes);
        for job in self.those(waiting) {
            gone.extend(self.take_what_came(keeper, round, job));
        }
        gone
    }

    /// Lets streams be read: all of them, or while the memory is full one that holds an incomplete message.
    pub(super) fn give_turns(&mut self, is_full: bool) {
        let mut favoured = false;
        for receiving in self.jobs.values_mut() {
            let goes_on = !is_full || (receiving.partial > 0 && !std::mem::replace(&mut favoured, true));
            if receiving.waits && goes_on && receiving.parked.is_empty() {
                receiving.waits = false;
                // There is room, because its last turn is over; or it is gone.
                let _ = receiving.stream.as_ref().map(|stream| stream.turns.try_send(()));
            }
        }
    }

    /// Drops jobs that no client has continued since then, even while nothing can be written: they may have filled the disk.
    pub(super) fn forget_unfinished(&mut self, keeper: &mut Keeper, round: &Round, since: u64) -> Vec<u64> {
        let late = self.those(|receiving| receiving.away_since().is_some_and(|away| away <= since));
        for &number in &late {
            if let Some(job) = keeper.job(number) {
                warn!(round.link.log, job = job.name(), "job dropped: its client did not finish detaching it");
            }
            if let Err(error) = keeper.store_mut().forget_incomplete(number) {
                warn!(round.link.log, %error, "cannot drop a detached job");
            }
            self.drop_job(keeper, round, number);
        }
        late
    }

    /// Returns since when a job has had no stream, the longest of all.
    pub(super) fn first_away_since(&self) -> Option<u64> {
        self.jobs.values().filter_map(Receiving::away_since).min()
    }

    /// Tells a stream that items before this index are durable.
    pub(super) fn has_received(&mut self, job: u64, stream: StreamId, items: u64) {
        let Some(receiving) = self.jobs.get_mut(&job) else { return };
        if let Some(on) = receiving.stream.as_ref().filter(|on| on.id == stream) {
            on.tell(Body::Durable(Durable { items, complete: false }));
            receiving.told = Some(items);
        }
    }

    /// Handles that a job's completion is durable. Returns whether it has to be started.
    pub(super) fn is_complete(&mut self, keeper: &mut Keeper, round: &Round, number: u64) -> bool {
        let Some(receiving) = self.jobs.remove(&number) else { return false };
        keeper.is_complete(number);
        let Some(job) = keeper.job(number) else { return false };
        let items = job.end;
        info!(round.link.log, job = job.name(), items, "job detached");
        if let Some(stream) = receiving.stream {
            self.streams.remove(&stream.id);
            stream.tell(Body::Durable(Durable { items, complete: true }));
            stream.outgoing.finish();
        }
        true
    }

    /// Forgets a job that the store has dropped.
    pub(super) fn drop_job(&mut self, keeper: &mut Keeper, round: &Round, number: u64) {
        self.break_off(round, number, Status::not_found("the job was discarded"));
        self.jobs.remove(&number);
        keeper.has_gone(number);
    }

    /// Returns how many bytes are held: incomplete messages, and what waits for room.
    pub(super) fn held(&self) -> u64 {
        let parked = self.parked.iter().flat_map(|joins| &joins.messages);
        let parked: u64 = parked.map(|message| message.encoded_len() as u64).sum();
        parked + self.jobs.values().map(Receiving::held).sum::<u64>()
    }

    /// Ends all streams: the server shuts down.
    pub(super) fn dismiss(&mut self) {
        self.parked.drain(..).for_each(|joins| joins.outgoing.fail(shutting_down()));
        let streams = std::mem::take(&mut self.jobs).into_values().filter_map(|receiving| receiving.stream);
        streams.for_each(|stream| stream.outgoing.fail(shutting_down()));
    }

    /// Returns the jobs for which this is true.
    pub(super) fn those(&self, is_so: impl Fn(&Receiving) -> bool) -> Vec<u64> {
        self.jobs.iter().filter(|(_, receiving)| is_so(receiving)).map(|(job, _)| *job).collect()
    }

    pub(super) fn receiving(&mut self, job: u64) -> Option<&mut Receiving> {
        self.jobs.get_mut(&job)
    }

    pub(super) fn all(&self) -> &BTreeMap<u64, Receiving> {
        &self.jobs
    }

    /// Returns whether streams wait until the store knows whether it has room for their jobs.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Ends the stream of a job.
    pub(super) fn break_off(&mut self, round: &Round, job: u64, status: Status) {
        let Some(receiving) = self.jobs.get(&job) else { return };
        if let Some(stream) = &receiving.stream {
            let address = shown(stream.address);
            info!(round.link.log, address, reason = status.message(), "detach stream closed");
            stream.outgoing.fail(status);
        }
        self.lose_stream(job, round.now);
    }

    /// Appends that a job is complete, if all its items and its program are here.
    pub(super) fn try_to_complete(&mut self, keeper: &mut Keeper, now: u64, number: u64) {
        let Some(receiving) = self.jobs.get_mut(&number) else { return };
        let is_whole = receiving.input_ended && !receiving.completes && receiving.parked.is_empty();
        let Some(job) = keeper.job(number).filter(|_| is_whole && keeper.is_pinned(number)) else { return };
        let items = job.end;
        // While nothing can be written, each progress of the store retries it.
        receiving.completes = keeper.complete(number, items, now);
    }

    /// Begins to receive a job, or lets it wait for room. `cannot_keep`: why no new job is accepted.
    fn begin_or_park(
        &mut self,
        keeper: &mut Keeper,
        round: &mut Round,
        joins: DetachJoins,
        cannot_keep: Option<Status>,
    ) -> Option<u64> {
        if !has_room(keeper.store(), &joins.messages, cannot_keep.is_some()) {
            self.parked.push_back(joins);
            return None;
        }
        let Joins { outgoing, turns, principal, address, messages, passed: _passed, id: reply } = joins;
        outgoing.for_one_connection();
        self.last_stream += 1;
        let id = StreamId(self.last_stream);
        let stream = Stream { id, outgoing: outgoing.clone(), turns, address };
        let mut messages = messages.into_iter();
        let first = messages.next().and_then(|message| message.body);
        let begun = match first {
            _ if round.drains => Err(shutting_down()),
            Some(client_message::Body::Detach(detach)) => {
                self.begin(keeper, round, principal, *detach, stream, cannot_keep)
            }
            _ => Err(Status::invalid_argument("a stream of Detach begins with Detach")),
        };
        if let Err(status) = begun {
            warn!(round.link.log, address = shown(address), reason = status.message(), "job not detached");
            outgoing.fail(status);
            return None;
        }
        let _ = reply.send(id);
        let said = Said::Messages { messages: messages.collect(), partial: 0 };
        self.says(keeper, round, Says { id, connection: 0, said, passed: None })
    }

    /// Opens a new job, continues one, or answers that it is complete. `cannot_keep`: why no new job is accepted.
    fn begin(
        &mut self,
        keeper: &mut Keeper,
        round: &Round,
        owner: Principal,
        mut detach: Detach,
        stream: Stream,
        cannot_keep: Option<Status>,
    ) -> Result<(), Status> {
        let tenant = owner.tenant().to_owned();
        let (pool, job) = (detach.pool.take().unwrap_or_default(), detach.job.take().unwrap_or_default());
        let settings = pool.settings.clone().unwrap_or_default();
        let digest = digest_of(&pool).ok_or_else(|| Status::invalid_argument("Detach without a program"))?;
        let (name, id) = (detach.name.clone(), detach.id.clone());
        if id.len() != 16 {
            return Err(Status::invalid_argument(format!("a detached job's id of {} bytes, not 16", id.len())));
        }
        let (number, items) = if let Some(there) = keeper.store().find(&tenant, &name) {
            if there.known.id != id || there.known.owner != owner {
                return Err(Status::already_exists(format!("there already is a job {name:?}")));
            }
            if !keeper.is_received(there) {
                stream.tell(Body::Durable(Durable { items: there.end, complete: true }));
                stream.outgoing.finish();
                return Ok(());
            }
            (there.number, there.end)
        } else if let Some(why) = cannot_keep {
            return Err(why);
        } else {
            let known = known(owner, detach, &job)?;
            check_opening(&pool, &job)?;
            let now_ms = keeper.now_ms(round.now);
            (keeper.store_mut().open(known, &pool, &job, now_ms).map_err(|error| status(&error))?, 0)
        };
        let receiving = self.jobs.entry(number).or_default();
        if let Some(older) = receiving.stream.take() {
            self.streams.remove(&older.id);
            older.outgoing.fail(Status::aborted(format!("job {name:?} continues on another stream")));
        }
        receiving.parked.clear();
        (receiving.partial, receiving.waits, receiving.input_ended) = (0, false, receiving.completes);
        receiving.told = None;
        (receiving.named, receiving.payload_limit) = (job.job, settings.payload_limit);
        receiving.program = Some(digest);
        self.streams.insert(stream.id, number);
        keeper.follows(Then::Received(number, stream.id, items));
        let is_gone = stream.is_gone();
        receiving.stream = Some(stream);
        if is_gone {
            self.lose_stream(number, round.now);
        } else if !keeper.is_pinned(number) {
            keeper.pin(number, digest, &round.link);
        }
        Ok(())
    }

    fn take_what_came(&mut self, keeper: &mut Keeper, round: &mut Round, job: u64) -> Option<u64> {
        while let Some(receiving) = self.jobs.get_mut(&job)
            && let Some(message) = receiving.parked.pop_front()
        {
            match take_in_part(keeper, job, receiving, message) {
                Ok(()) => {}
                Err(NotTaken::Yet(message)) => {
                    receiving.parked.push_front(message);
                    break;
                }
                Err(NotTaken::Ever(status)) => {
                    self.break_off(round, job, status);
                    return None;
                }
                Err(NotTaken::Full(status)) => {
                    self.break_off(round, job, status);
                    return self.forget(keeper, round, job);
                }
            }
        }
        let items = keeper.job(job).map(|job| job.end);
        let stream = self.jobs.get(&job).and_then(|receiving| receiving.stream.as_ref());
        if let (Some(stream), Some(items)) = (stream, items) {
            keeper.follows(Then::Received(job, stream.id, items));
        }
        self.try_to_complete(keeper, round.now, job);
        self.give_turns(round.memory.is_full);
        None
    }

    /// Drops a job if that can be written; otherwise it is dropped when its time is over.
    fn forget(&mut self, keeper: &mut Keeper, round: &Round, job: u64) -> Option<u64> {
        if let Err(error) = keeper.store_mut().forget(job) {
            warn!(round.link.log, %error, "cannot drop a detached job yet");
            return None;
        }
        self.drop_job(keeper, round, job);
        Some(job)
    }

    fn lose_stream(&mut self, job: u64, now: u64) {
        let Some(receiving) = self.jobs.get_mut(&job) else { return };
        if let Some(stream) = receiving.stream.take() {
            self.streams.remove(&stream.id);
        }
        receiving.parked.clear();
        (receiving.partial, receiving.waits, receiving.since) = (0, false, now);
        receiving.input_ended = receiving.completes;
    }
}

fn take_in_part(
    keeper: &mut Keeper,
    job: u64,
    receiving: &mut Receiving,
    message: ClientMessage,
) -> Result<(), NotTaken> {
    let wrong = |text: String| NotTaken::Ever(Status::invalid_argument(text));
    let (named, limit) = (receiving.named, receiving.payload_limit);
    if receiving.completes {
        // It was sent before, on another stream.
        return Ok(());
    }
    if receiving.input_ended {
        return Err(wrong("a message behind EndItems".to_owned()));
    }
    match of_one_job(message.clone()).map_err(|refused| wrong(refused.to_string()))? {
        OfOneJob::Items(of, batch) if of == named => {
            let next = keeper.job(job).map_or(0, |job| job.end);
            if batch.first != next {
                return Err(wrong(format!("items from {} on come where item {next} is the next", batch.first)));
            }
            if let Some((item, bytes)) = batch.longer_than(limit) {
                return Err(wrong(format!("item {item} has {bytes} bytes, and the pool's limit is {limit}")));
            }
            let items = Entry::Items { first: batch.first, data: batch.data, ends: batch.ends };
            keeper.store_mut().append(job, items).map_err(|error| match error.kind() {
                JobStoreErrorKind::Busy | JobStoreErrorKind::Io => NotTaken::Yet(message),
                JobStoreErrorKind::Full => NotTaken::Full(status(&error)),
                _ => NotTaken::Ever(status(&error)),
            })
        }
        OfOneJob::End(of) if of == named => {
            receiving.input_ended = true;
            Ok(())
        }
        _ => Err(wrong(format!("a stream of Detach has Items and EndItems, of job {named}"))),
    }
}

/// Returns whether a new job can be answered now: the store has room, or will not get any by waiting. `given_up`: writing has failed
/// for too long.
fn has_room(store: &dyn JobStore, messages: &[ClientMessage], given_up: bool) -> bool {
    let bytes = messages.first().map_or(0, |message| message.encoded_len() as u64);
    match store.takes(2 * bytes).map_err(|error| error.kind()) {
        Err(JobStoreErrorKind::Busy) => false,
        Err(JobStoreErrorKind::Io) => given_up,
        _ => true,
    }
}
