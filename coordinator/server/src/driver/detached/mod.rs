//! Detached jobs: the store that keeps them, and the internal clients of their pools.
//!
//! A job arrives in a client's session (`detaching`, `intake`), and its pool passes from the session to the store. When
//! it is complete there, it runs in that pool. To the coordinator, the pool's client looks like any other, but it is
//! internal: the runner (`runner`) acts as the client. It reads items from disk as far as there is room (`feeding`),
//! and stores the outcomes. Agents keep their reports until these are durable.
//!
//! Clients that read the job get what is on disk (`readers`). After a restart, the internal client reopens the pool,
//! like a client that has lost its coordinator.
//!
//! The driver owns the sessions of clients that detach and read. Their messages are handled here; [`Detached::take_ends`] returns the
//! sessions that have finished.
//!
//! Each of these components owns its state and uses the store through the [`TrackedStore`](tracked_store::TrackedStore). [`Jobs`] passes events
//! of one component on to the others, at once or when the store has acknowledged entries (`durable`).
//!
//! The loop never waits for the store: it writes on a thread of its own, and tasks await reads. While nothing can be written, no further
//! jobs are accepted (`refuse`).

mod ask;
mod checks;
mod detaching;
mod durable;
mod failing;
mod feed;
mod feeding;
mod find;
mod intake;
mod jobs;
mod open;
mod program;
mod readers;
mod receiving;
mod refuse;
mod runner;
mod tracked_store;

use std::future::pending;

use farpool_coordinator::{ClientId, Principal};
use farpool_programs::Digest;
use farpool_proto::v1::{
    CancelDetachedRequest, ClientEvent, ClientMessage, DescribeDetachedRequest, DetachedJob, DiscardDetachedRequest,
    JournalStatus, ListDetachedReply,
};
use farpool_store::Wakeup;
use tonic::Status;

use super::super::link::ReadResult;
use super::client::Client;
use super::round::Round;
use ask::Reply;
use checks::no_store;
use intake::SessionEnd;
use jobs::Jobs;
pub(in super::super) use open::Opened;

/// The detached jobs of a coordinator.
pub(super) struct Detached {
    /// `None`: the coordinator has no store for them.
    jobs: Option<Jobs>,
    /// Sessions that are refused because there is no store.
    refused: Vec<SessionEnd>,
}

impl Detached {
    pub(super) fn new(opened: Option<Opened>) -> Self {
        Self { jobs: opened.map(Jobs::new), refused: Vec::new() }
    }

    /// Resumes the jobs that were in the store when it was opened.
    pub(super) fn begin(&mut self, round: &Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.begin(round);
        }
    }

    /// Completes when the store has made progress; never if there is no store.
    pub(super) async fn written(wakeup: Option<&Wakeup>) {
        match wakeup {
            Some(wakeup) => wakeup.wait().await,
            None => pending().await,
        }
    }

    pub(super) fn wakeup(&self) -> Option<Wakeup> {
        self.jobs.as_ref().map(|jobs| jobs.tracked.store().wakeup())
    }

    /// Returns whether another round has something to do, even without input.
    pub(super) fn has_more(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.runner.has_more())
    }

    /// Returns when the next round is due.
    pub(super) fn next_check(&self, round: &Round) -> Option<u64> {
        self.jobs.as_ref()?.next_check(round)
    }

    /// Does this round's work before the coordinator schedules.
    pub(super) fn prepare_round(&mut self, round: &mut Round, was_written: bool) {
        if let Some(jobs) = &mut self.jobs {
            jobs.prepare_round(round, was_written);
        }
    }

    /// Hands new entries to the store's writer, if the writer is idle.
    pub(super) fn write_entries(&mut self, round: &mut Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.write_entries(round);
        }
    }

    /// Handles messages of a session that detaches or reads a job.
    pub(super) fn handle_messages(
        &mut self,
        round: &mut Round,
        client: &Client,
        id: ClientId,
        messages: Vec<ClientMessage>,
    ) {
        match &mut self.jobs {
            Some(jobs) => jobs.handle_messages(round, client, id, messages),
            None => self.refused.push((id, Err(no_store()))),
        }
    }

    /// Handles the end of a session, whatever its reason.
    pub(super) fn leave(&mut self, round: &Round, id: ClientId) {
        if let Some(jobs) = &mut self.jobs {
            jobs.leave(round, id);
        }
    }

    /// Takes the sessions to be ended. Those without an error were sent all their messages.
    pub(super) fn take_ends(&mut self) -> Vec<SessionEnd> {
        match &mut self.jobs {
            Some(jobs) => jobs.take_ends(),
            None => std::mem::take(&mut self.refused),
        }
    }

    /// Handles data that a task has read.
    pub(super) fn handle_read(&mut self, round: &mut Round, read: ReadResult) {
        if let Some(jobs) = &mut self.jobs {
            jobs.handle_read(round, read);
        }
    }

    /// Checks queues after some have run low.
    pub(super) fn check_queues(&mut self, round: &Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.readers.check_queues(&jobs.tracked, round);
        }
    }

    /// Reports to the coordinator which tasks wait for unfinished jobs, so that it lends their slots.
    pub(super) fn lend(&self, round: &mut Round) {
        if let Some(jobs) = &self.jobs {
            jobs.readers.lend(&jobs.tracked, round);
        }
    }

    /// Returns whether this client is internal: its pool runs a detached job.
    pub(super) fn is_internal(&self, client: ClientId) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.runner.job_of(client).is_some())
    }

    /// Returns the internal clients.
    pub(super) fn internal_clients(&self) -> impl Iterator<Item = ClientId> {
        self.jobs.iter().flat_map(|jobs| jobs.runner.clients())
    }

    /// Keeps an event for an internal client.
    pub(super) fn post(&mut self, client: ClientId, event: ClientEvent) {
        if let Some(jobs) = &mut self.jobs {
            jobs.runner.post(client, event);
        }
    }

    /// Handles the events that were kept.
    pub(super) fn handle_pool_events(&mut self, round: &mut Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.runner.handle_events(&mut jobs.tracked, round);
        }
    }

    /// Returns whether a job that is being detached waits for this program.
    pub(super) fn wants(&self, digest: Digest) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.intake.wants(digest))
    }

    /// Handles the arrival of a program.
    pub(super) fn program_arrived(&self, round: &Round, digest: Digest) {
        if let Some(jobs) = &self.jobs {
            jobs.intake.program_arrived(&jobs.tracked, round, digest);
        }
    }

    /// Handles that a program could not be received.
    pub(super) fn program_failed(&mut self, round: &Round, digest: Digest, why: &Status) {
        if let Some(jobs) = &mut self.jobs {
            jobs.program_failed(round, digest, why);
        }
    }

    /// Describes a job.
    pub(super) fn describe(&self, by: &Principal, request: &DescribeDetachedRequest) -> Result<DetachedJob, Status> {
        self.jobs.as_ref().ok_or_else(no_store)?.describe(by, request)
    }

    /// Lists the jobs of a tenant.
    pub(super) fn list(&self, tenant: &str) -> Result<ListDetachedReply, Status> {
        Ok(self.jobs.as_ref().ok_or_else(no_store)?.list(tenant))
    }

    pub(super) fn cancel(&mut self, round: &mut Round, by: &Principal, request: &CancelDetachedRequest, reply: Reply) {
        match &mut self.jobs {
            Some(jobs) => jobs.cancel(round, by, request, reply),
            None => drop(reply.send(Err(no_store()))),
        }
    }

    pub(super) fn discard(
        &mut self,
        round: &mut Round,
        by: &Principal,
        request: &DiscardDetachedRequest,
        reply: Reply,
    ) {
        match &mut self.jobs {
            Some(jobs) => jobs.discard(round, by, request, reply),
            None => drop(reply.send(Err(no_store()))),
        }
    }

    /// Returns whether sessions wait for room in the store.
    pub(super) fn has_parked(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.intake.has_parked())
    }

    /// Returns how many bytes of a client wait for room in the store.
    pub(super) fn parked_of(&self, client: ClientId) -> u64 {
        self.jobs.as_ref().map_or(0, |jobs| jobs.intake.parked_of(client))
    }

    /// Returns how many bytes are held: parts that wait for the store, items, and outcomes that wait for readers.
    pub(super) fn held(&self) -> u64 {
        let held = |jobs: &Jobs| {
            jobs.intake.held() + jobs.readers.held() + jobs.runner.held() + jobs.tracked.store().backlog()
        };
        self.jobs.as_ref().map_or(0, held)
    }

    pub(super) fn status(&self) -> Option<JournalStatus> {
        self.jobs.as_ref().map(|jobs| jobs.tracked.status())
    }

    /// Closes the store, which writes its remaining entries if it can: the server shuts down.
    pub(super) fn dismiss(&mut self) {
        self.jobs = None;
    }
}
