//! Receives jobs: new ones, and those whose session ended before they were complete. A job runs only when it is complete, and is dropped if
//! its client does not continue.
//!
//! Methods return the jobs that were dropped, so that their readers can be informed.

use std::collections::BTreeMap;

use farpool_common::log::{info, warn};
use farpool_coordinator::ClientId;
use farpool_coordinator::convert::Batch;
use farpool_proto::v1::{ClientMessage, OpenJob, OpenPool, client_message};
use farpool_store::{Entry, JobStoreErrorKind};
use prost::Message;
use tonic::Status;

use super::super::super::refusal::shutting_down;
use super::super::client::Client;
use super::super::round::Round;
use super::checks::status;
use super::detaching::{Detaching, Handled, Part, Withdrawal, gap};
use super::durable::OnDurable;
use super::find::{FoundJob, find, find_or_open, has_room};
use super::receiving::{PoolFacts, Receiving};
use super::tracked_store::TrackedStore;

/// The end of a session: it has finished, or cannot continue.
pub(super) type SessionEnd = (ClientId, Result<(), Status>);

/// All jobs that are incomplete or not known to be complete.
#[derive(Default)]
pub(super) struct Intake {
    jobs: BTreeMap<u64, Receiving>,
    /// The sessions in which jobs are detached.
    sessions: BTreeMap<ClientId, Detaching>,
    /// Sessions to be ended.
    pub(super) ends: Vec<SessionEnd>,
}

/// Why a part is not stored.
enum NotStored {
    /// There is no room now.
    NoRoomYet(Part),
    Refused(Status),
    /// There will be no room: the job is dropped.
    NoRoom(Status),
}

impl Intake {
    /// Handles messages of a session that detaches a job. The first message opens its pool.
    pub(super) fn handle_messages(
        &mut self,
        tracked: &mut TrackedStore,
        round: &mut Round,
        client: &Client,
        id: ClientId,
        messages: Vec<ClientMessage>,
    ) -> Option<u64> {
        let mut begins = !client.begun;
        for message in messages {
            let Some(session) = self.sessions.get_mut(&id) else {
                // Messages after the end of a session are ignored, also those that could begin one.
                let (true, Some(client_message::Body::OpenPool(pool))) = (std::mem::take(&mut begins), message.body)
                else {
                    break;
                };
                self.sessions.insert(id, Detaching::new(round, client, pool));
                continue;
            };
            if session.withdrawal.is_some() {
                return None;
            }
            match session.handle(message) {
                Ok(Handled::Parked) => {}
                Ok(Handled::Withdrawn) => return self.withdraw(tracked, round, id),
                Err(status) => {
                    // Earlier messages are stored.
                    let gone = self.store_parked(tracked, round, id, None);
                    self.end(round, id, Err(status));
                    return gone;
                }
            }
        }
        self.store_parked(tracked, round, id, None)
    }

    /// Handles the end of a session, whatever its reason.
    pub(super) fn leave(&mut self, now: u64, id: ClientId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(receiving) = session.job.and_then(|job| self.jobs.get_mut(&job))
            && receiving.client == Some(id)
        {
            receiving.lose_client(now);
        }
    }

    /// Expects the rest of a job that was incomplete when the previous coordinator ended. `pool`: what its pool was
    /// opened with.
    pub(super) fn expect_rest(&mut self, job: u64, pool: Option<PoolFacts>, now: u64) {
        self.jobs.insert(job, Receiving { since: now, pool, ..Receiving::default() });
    }

    /// Retries parts that wait for room: there may be some now.
    pub(super) fn take_parked(&mut self, tracked: &mut TrackedStore, round: &mut Round) -> Vec<u64> {
        let cannot_keep = tracked.cannot_keep(round.now);
        let mut gone = self.forget_withdrawn(tracked, round);
        let waits = |(_, session): &(&ClientId, &Detaching)| session.has_parked();
        let waiting: Vec<ClientId> = self.sessions.iter().filter(waits).map(|(id, _)| *id).collect();
        for id in waiting {
            gone.extend(self.store_parked(tracked, round, id, cannot_keep.as_ref()));
        }
        let whole = self.jobs_where(|receiving| receiving.input_ended && !receiving.completion_appended);
        whole.into_iter().for_each(|job| self.try_to_complete(tracked, round.now, job));
        if tracked.is_failing() {
            self.answer_withdrawals(tracked);
        }
        gone
    }

    /// Drops jobs that have had no client since `since`, even while nothing can be written: they may have filled the
    /// disk.
    pub(super) fn forget_unfinished(&mut self, tracked: &mut TrackedStore, round: &mut Round, since: u64) -> Vec<u64> {
        let late = self.jobs_where(|receiving| receiving.away_since().is_some_and(|away| away <= since));
        for &number in &late {
            if let Some(job) = tracked.job(number) {
                warn!(round.link.log, job = job.name(), "job dropped: its client did not finish detaching it");
            }
            if let Err(error) = tracked.store_mut().forget_incomplete(number) {
                warn!(round.link.log, %error, "cannot drop a detached job");
            }
            self.drop_job(tracked, round, number);
        }
        late
    }

    /// Returns when the first of the jobs without a session lost it.
    pub(super) fn first_away_since(&self) -> Option<u64> {
        self.jobs.values().filter_map(Receiving::away_since).min()
    }

    /// Reports to a session that items before this index are durable, and this many of the bytes that it has sent.
    pub(super) fn report_durable(&mut self, job: u64, id: ClientId, items: u64, bytes: u64) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.job == Some(job)) {
            session.send_durable(items, bytes);
        }
    }

    /// Reports to a session that its withdrawal is durable.
    pub(super) fn report_withdrawn(&mut self, id: ClientId) {
        if let Some(session) = self.sessions.remove(&id) {
            session.send_withdrawn();
            self.ends.push((id, Ok(())));
        }
    }

    /// Handles that a job's completion is durable. Returns whether it has to be started.
    pub(super) fn handle_complete(&mut self, tracked: &mut TrackedStore, round: &Round, number: u64) -> bool {
        tracked.note_complete(number);
        if self.jobs.get(&number).is_none_or(|receiving| receiving.withdrawn) {
            return false;
        }
        let client = self.jobs.remove(&number).and_then(|receiving| receiving.client);
        let Some(job) = tracked.job(number) else { return false };
        let items = job.end;
        info!(round.link.log, job = job.name(), items, "job detached");
        if let Some((id, session)) = client.and_then(|id| Some((id, self.sessions.remove(&id)?))) {
            session.send_complete(items);
            self.ends.push((id, Ok(())));
        }
        true
    }

    /// Handles that a job is incomplete again. Returns it if it was dropped. `refusal`: why it is not kept.
    pub(super) fn handle_incomplete_again(
        &mut self,
        tracked: &mut TrackedStore,
        round: &Round,
        number: u64,
        refusal: Option<&Status>,
    ) -> Option<u64> {
        // It never runs now, even if the coordinator ends before it is dropped.
        self.sessions_that_withdraw(number).into_iter().for_each(|id| self.report_withdrawn(id));
        let receiving = self.jobs.get_mut(&number)?;
        receiving.completion_appended = false;
        if receiving.withdrawn {
            tracked.store_mut().forget_incomplete(number).ok()?;
            self.drop_job(tracked, round, number);
            return Some(number);
        }
        self.refuse(tracked, round, number, refusal?.clone())
    }

    /// Forgets a job that the store has dropped.
    pub(super) fn drop_job(&mut self, tracked: &mut TrackedStore, round: &Round, number: u64) {
        self.end_session_of(round, number, Status::not_found("the job was discarded"));
        self.sessions_that_withdraw(number).into_iter().for_each(|id| tracked.when_durable(OnDurable::Withdrawn(id)));
        self.jobs.remove(&number);
        tracked.job_dropped(number);
    }

    /// Returns how many bytes wait for room in the store.
    pub(super) fn held(&self) -> u64 {
        self.sessions.values().map(Detaching::parked_bytes).sum()
    }

    /// Returns how many bytes of a client wait for room in the store.
    pub(super) fn parked_of(&self, id: ClientId) -> u64 {
        self.sessions.get(&id).map_or(0, Detaching::parked_bytes)
    }

    /// Returns whether a session waits for room in the store.
    pub(super) fn has_parked(&self) -> bool {
        self.sessions.values().any(Detaching::has_parked)
    }

    /// Returns the jobs that match.
    pub(super) fn jobs_where(&self, matches: impl Fn(&Receiving) -> bool) -> Vec<u64> {
        self.jobs.iter().filter(|(_, receiving)| matches(receiving)).map(|(job, _)| *job).collect()
    }

    pub(super) fn receiving(&mut self, job: u64) -> Option<&mut Receiving> {
        self.jobs.get_mut(&job)
    }

    pub(super) fn all(&self) -> &BTreeMap<u64, Receiving> {
        &self.jobs
    }

    /// Returns the session in which a job is detached, if any.
    pub(super) fn session_of(&self, receiving: &Receiving) -> Option<&Detaching> {
        self.sessions.get(&receiving.client?)
    }

    /// Ends the session of a job.
    pub(super) fn end_session_of(&mut self, round: &Round, job: u64, status: Status) {
        if let Some(id) = self.jobs.get(&job).and_then(|receiving| receiving.client) {
            self.end(round, id, Err(status));
        }
    }

    /// Appends the record that completes a job, if all its items and its program have arrived.
    pub(super) fn try_to_complete(&mut self, tracked: &mut TrackedStore, now: u64, number: u64) {
        let Some(receiving) = self.jobs.get_mut(&number) else { return };
        let is_whole = receiving.input_ended && !receiving.completion_appended;
        let Some(job) = tracked.job(number).filter(|_| is_whole && tracked.is_pinned(number)) else { return };
        let items = job.end;
        // While nothing can be written, this is retried whenever the store makes progress.
        receiving.completion_appended = tracked.complete(number, items, now);
    }

    /// Ends a session: the job, if it has begun, waits for its client to continue.
    fn end(&mut self, round: &Round, id: ClientId, end: Result<(), Status>) {
        if self.sessions.contains_key(&id) {
            self.leave(round.now, id);
            self.ends.push((id, end));
        }
    }

    /// Stores the parked parts of a session while there is room. `cannot_keep`: why no new job is accepted.
    fn store_parked(
        &mut self,
        tracked: &mut TrackedStore,
        round: &mut Round,
        id: ClientId,
        cannot_keep: Option<&Status>,
    ) -> Option<u64> {
        let mut has_stored = false;
        while let Some(session) = self.sessions.get_mut(&id)
            && let Some(part) = session.unpark()
        {
            let receiving = session.job.and_then(|job| Some((job, self.jobs.get_mut(&job)?)));
            let taken = match (part, receiving) {
                (Part::Job(open), _) => self.open(tracked, round, id, open, cannot_keep),
                (part, Some((job, receiving))) => store(tracked, job, receiving, session, part),
                // The job was dropped, and the session is about to end.
                (_, None) => return None,
            };
            match taken {
                Ok(()) => has_stored = true,
                Err(NotStored::NoRoomYet(part)) => {
                    self.sessions.get_mut(&id)?.park_again(part);
                    break;
                }
                Err(NotStored::Refused(status)) => {
                    self.end(round, id, Err(status));
                    return None;
                }
                Err(NotStored::NoRoom(status)) => {
                    let job = self.sessions.get(&id)?.job;
                    self.end(round, id, Err(status));
                    return self.forget(tracked, round, job?);
                }
            }
        }
        let session = self.sessions.get(&id).filter(|_| has_stored)?;
        let (number, bytes) = (session.job?, session.stored);
        let items = tracked.job(number)?.end;
        tracked.when_durable(OnDurable::Received(number, id, items, bytes));
        self.try_to_complete(tracked, round.now, number);
        None
    }

    /// Opens the job of a session: a new one, or one to be continued. If it is complete already, the session ends.
    fn open(
        &mut self,
        tracked: &mut TrackedStore,
        round: &Round,
        id: ClientId,
        mut open: Box<OpenJob>,
        cannot_keep: Option<&Status>,
    ) -> Result<(), NotStored> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let bytes = (session.pool.encoded_len() + open.encoded_len()) as u64;
        if !has_room(tracked.store(), bytes, cannot_keep.is_some()) {
            return Err(NotStored::NoRoomYet(Part::Job(open)));
        }
        let detach = open.detach.take().unwrap_or_default();
        let facts = PoolFacts::of(&session.pool);
        let facts = facts.ok_or_else(|| NotStored::Refused(Status::invalid_argument("OpenPool without a program")))?;
        let found = match round.drains {
            true => Err(shutting_down()),
            false => find_or_open(tracked, round, session, (detach, &open), facts, cannot_keep, &self.jobs),
        };
        match found.map_err(NotStored::Refused)? {
            FoundJob::Complete(items) => {
                session.send_complete(items);
                self.end(round, id, Ok(()));
            }
            FoundJob::Incomplete(number) => {
                session.job = Some(number);
                *session.pool = OpenPool::default();
                self.receive(tracked, round, number, id, facts);
            }
        }
        Ok(())
    }

    /// Begins or continues to receive a job in a session.
    fn receive(&mut self, tracked: &TrackedStore, round: &Round, number: u64, id: ClientId, pool: PoolFacts) {
        let receiving = self.jobs.entry(number).or_default();
        let older = receiving.client.replace(id);
        (receiving.input_ended, receiving.pool) = (receiving.completion_appended, Some(pool));
        if let Some(older) = older
            && self.sessions.remove(&older).is_some()
        {
            self.ends.push((older, Err(Status::aborted("the job continues on another stream"))));
        }
        if !tracked.is_pinned(number) {
            tracked.pin(number, pool.program, &round.link);
        }
    }

    /// Drops the job of a session whose client no longer wants it, even while nothing can be written. Returns the job if it is dropped.
    fn withdraw(&mut self, tracked: &mut TrackedStore, round: &Round, id: ClientId) -> Option<u64> {
        let session = self.sessions.get_mut(&id)?;
        let found = find(tracked, session);
        if let Some(existing) = found.filter(|found| !tracked.is_received(found)) {
            // It was complete before this session began.
            session.send_complete(existing.end);
            self.end(round, id, Ok(()));
            return None;
        }
        let number = found.map(|found| found.number);
        (session.withdrawal, session.job, *session.pool) = (Some(Withdrawal::Safe), None, OpenPool::default());
        session.forget_parked();
        let Some((number, receiving)) = number.and_then(|number| Some((number, self.jobs.get_mut(&number)?))) else {
            self.report_withdrawn(id);
            return None;
        };
        receiving.lose_client(round.now);
        if receiving.completion_appended {
            // The record that completes it may be on disk: the job is dropped when that is known.
            (receiving.withdrawn, session.withdrawal) = (true, Some(Withdrawal::Of(number)));
            if tracked.is_failing() {
                tracked.store_mut().withdraw_end(number);
            }
            return None;
        }
        if tracked.store_mut().forget(number).is_ok() {
            self.drop_job(tracked, round, number);
            tracked.when_durable(OnDurable::Withdrawn(id));
            return Some(number);
        }
        // Nothing can be written now. An error means that the job is gone.
        let _ = tracked.store_mut().forget_incomplete(number);
        self.drop_job(tracked, round, number);
        self.report_withdrawn(id);
        Some(number)
    }

    /// Answers the clients whose withdrawals are not durable, because nothing can be written. If the record that completes the job may be
    /// on disk, it has to be withdrawn first.
    fn answer_withdrawals(&mut self, tracked: &mut TrackedStore) {
        let withdrawals = self.sessions.iter().filter_map(|(id, session)| Some((*id, session.withdrawal?)));
        for (id, withdrawal) in withdrawals.collect::<Vec<_>>() {
            match withdrawal {
                Withdrawal::Safe => self.report_withdrawn(id),
                Withdrawal::Of(job) => tracked.store_mut().withdraw_end(job),
            }
        }
    }

    /// Returns the sessions that have withdrawn this job, and wait until the record that completes it is withdrawn.
    fn sessions_that_withdraw(&self, job: u64) -> Vec<ClientId> {
        let waits = |session: &Detaching| session.withdrawal == Some(Withdrawal::Of(job));
        self.sessions.iter().filter(|(_, session)| waits(session)).map(|(id, _)| *id).collect()
    }

    /// Drops withdrawn jobs whose completing record may have been on disk, once it is known whether it is.
    fn forget_withdrawn(&mut self, tracked: &mut TrackedStore, round: &Round) -> Vec<u64> {
        let withdrawn = self.jobs_where(|receiving| receiving.withdrawn).into_iter();
        let known: Vec<u64> = withdrawn.filter(|job| !tracked.is_completing(*job)).collect();
        known.into_iter().filter_map(|job| self.forget(tracked, round, job)).collect()
    }

    /// Drops a job if that can be written. Otherwise it is dropped later.
    fn forget(&mut self, tracked: &mut TrackedStore, round: &Round, job: u64) -> Option<u64> {
        if let Err(error) = tracked.store_mut().forget(job) {
            warn!(round.link.log, %error, "cannot drop a detached job yet");
            return None;
        }
        self.drop_job(tracked, round, job);
        Some(job)
    }
}

/// Stores items of a job, or their end. Items that are stored already are skipped.
fn store(
    tracked: &mut TrackedStore,
    job: u64,
    receiving: &mut Receiving,
    session: &mut Detaching,
    part: Part,
) -> Result<(), NotStored> {
    let Part::Items(batch) = part else {
        receiving.input_ended = true;
        return Ok(());
    };
    let (first, end, bytes) = (batch.first, batch.first + batch.count, batch.bytes());
    let next = tracked.job(job).map_or(0, |job| job.end);
    // If the job's end is stored, all items were stored before.
    if end > next && !receiving.completion_appended {
        if first > next {
            return Err(NotStored::Refused(gap(first, next)));
        }
        let Batch { first, data, ends, .. } = if first < next { batch.part(next, end - next) } else { batch.clone() };
        tracked.store_mut().append(job, Entry::Items { first, data, ends }).map_err(|error| match error.kind() {
            JobStoreErrorKind::Busy | JobStoreErrorKind::Io => NotStored::NoRoomYet(Part::Items(batch)),
            JobStoreErrorKind::Full => NotStored::NoRoom(status(&error)),
            _ => NotStored::Refused(status(&error)),
        })?;
    }
    session.stored += bytes;
    Ok(())
}
