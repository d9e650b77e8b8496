//! Detached jobs: the store that keeps them, and the played clients of their pools.
//!
//! A job arrives on a stream (`intake`). When it is complete in the store, it runs in a pool of its own. To the coordinator, that pool's
//! client looks like any other. It is played here (`player`): it reads items from disk as far as there is room (`feeding`), and
//! stores the outcomes. Agents keep their reports until these are durable. Attached clients are sent what is on disk
//! (`readers`). After a restart, the played client reopens the pool, like a client that has lost its coordinator.
//!
//! Each of these components owns its state and uses the store through the [`Keeper`](keeper::Keeper). [`Jobs`] says what follows for one
//! component from an event of another, at once or when the store has acknowledged something (`durable`).
//!
//! Nothing waits for the store: it writes on a thread of its own, and tasks await what is read. While nothing can be written, no
//! further jobs are accepted (`refuse`).

mod ask;
mod checks;
mod durable;
mod failing;
mod feed;
mod feeding;
mod intake;
mod jobs;
mod keeper;
mod open;
mod player;
mod program;
mod readers;
mod receiving;
mod refuse;

use std::future::pending;

use farpool_common::log::warn;
use farpool_coordinator::{ClientId, Principal};
use farpool_net::Outgoing;
use farpool_programs::Digest;
use farpool_proto::v1::{
    CancelDetachedRequest, ClientEvent, ClientMessage, DiscardDetachedRequest, JournalStatus, ListDetachedReply,
};
use farpool_store::Wakeup;
use tonic::Status;

use super::super::link::{Says, StreamId, WasRead, shown};
use super::super::refusal::shutting_down;
use super::round::Round;
use ask::Reply;
use checks::no_store;
use intake::DetachJoins;
use jobs::Jobs;
pub(in super::super) use open::Opened;
use readers::AttachJoins;

/// The detached jobs of a coordinator.
pub(super) struct Detached {
    /// `None`: the coordinator has no store for them.
    jobs: Option<Jobs>,
}

impl Detached {
    pub(super) fn new(opened: Option<Opened>) -> Self {
        Self { jobs: opened.map(Jobs::new) }
    }

    /// Resumes the jobs that were in the store when it was opened.
    pub(super) fn begin(&mut self, round: &Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.begin(round);
        }
    }

    /// Completes when the store has made progress; never if there is none.
    pub(super) async fn written(wakeup: Option<&Wakeup>) {
        match wakeup {
            Some(wakeup) => wakeup.wait().await,
            None => pending().await,
        }
    }

    pub(super) fn wakeup(&self) -> Option<Wakeup> {
        self.jobs.as_ref().map(|jobs| jobs.keeper.store().wakeup())
    }

    /// Returns whether another round has something to do, even without input.
    pub(super) fn has_more(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.player.has_more())
    }

    /// Returns when the next round is due.
    pub(super) fn next_look(&self, round: &Round) -> Option<u64> {
        self.jobs.as_ref()?.next_look(round)
    }

    /// Does what each round has to do before the coordinator schedules.
    pub(super) fn tend(&mut self, round: &mut Round, was_written: bool) {
        if let Some(jobs) = &mut self.jobs {
            jobs.tend(round, was_written);
        }
    }

    /// Hands new entries to the store's writer, if that is idle.
    pub(super) fn write_down(&mut self, round: &mut Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.write_down(round);
        }
    }

    /// Handles the start of a Detach stream.
    pub(super) fn detach_joins(&mut self, round: &mut Round, joins: DetachJoins) {
        match &mut self.jobs {
            Some(jobs) => jobs.detach_joins(round, joins),
            None => {
                let status = refuse(round, &joins.outgoing);
                warn!(round.link.log, address = shown(joins.address), reason = status.message(), "job not detached");
                joins.outgoing.fail(status);
            }
        }
    }

    pub(super) fn detach_says(&mut self, round: &mut Round, says: Says<ClientMessage, StreamId>) {
        if let Some(jobs) = &mut self.jobs {
            jobs.detach_says(round, says);
        }
    }

    /// Handles the start of an Attach stream.
    pub(super) fn attach_joins(&mut self, round: &Round, joins: AttachJoins) {
        match &mut self.jobs {
            Some(jobs) => jobs.readers.joins(&jobs.keeper, round, joins),
            None => joins.outgoing.fail(refuse(round, &joins.outgoing)),
        }
    }

    pub(super) fn attach_says(&mut self, round: &Round, says: Says<ClientMessage, StreamId>) {
        if let Some(jobs) = &mut self.jobs {
            jobs.readers.says(round, says);
        }
    }

    /// Handles what a task has read.
    pub(super) fn was_read(&mut self, round: &mut Round, read: WasRead) {
        if let Some(jobs) = &mut self.jobs {
            jobs.was_read(round, read);
        }
    }

    /// Checks queues: some have run low or lost their reader.
    pub(super) fn look_at_queues(&mut self, round: &Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.intake.look_at_queues(round.now);
            jobs.readers.look_at_queues(&jobs.keeper, round);
        }
    }

    /// Tells the coordinator which tasks wait for unfinished jobs, so that it lends their slots.
    pub(super) fn lend(&self, round: &mut Round) {
        if let Some(jobs) = &self.jobs {
            jobs.readers.lend(&jobs.keeper, round);
        }
    }

    /// Returns whether this client is played.
    pub(super) fn plays(&self, client: ClientId) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.player.job_of(client).is_some())
    }

    /// Returns the played clients.
    pub(super) fn played(&self) -> impl Iterator<Item = ClientId> {
        self.jobs.iter().flat_map(|jobs| jobs.player.clients())
    }

    /// Keeps an event for a played client.
    pub(super) fn post(&mut self, client: ClientId, event: ClientEvent) {
        if let Some(jobs) = &mut self.jobs {
            jobs.player.post(client, event);
        }
    }

    /// Handles the events that were kept.
    pub(super) fn hear_pools(&mut self, round: &mut Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.player.hear(&mut jobs.keeper, round);
        }
    }

    /// Returns whether a job that is being detached waits for this program.
    pub(super) fn wants(&self, digest: Digest) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.intake.wants(digest))
    }

    /// Handles the arrival of a program.
    pub(super) fn program_came(&self, round: &Round, digest: Digest) {
        if let Some(jobs) = &self.jobs {
            jobs.intake.program_came(&jobs.keeper, round, digest);
        }
    }

    /// Handles that a program could not be received.
    pub(super) fn program_failed(&mut self, round: &Round, digest: Digest, why: &Status) {
        if let Some(jobs) = &mut self.jobs {
            jobs.program_failed(round, digest, why);
        }
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

    /// Returns how many bytes are held: incomplete messages, entries that wait for the store, and outcomes that wait for readers.
    pub(super) fn held(&self) -> u64 {
        let held = |jobs: &Jobs| {
            jobs.intake.held() + jobs.readers.holds() + jobs.player.held() + jobs.keeper.store().backlog()
        };
        self.jobs.as_ref().map_or(0, held)
    }

    pub(super) fn status(&self) -> Option<JournalStatus> {
        self.jobs.as_ref().map(|jobs| jobs.keeper.status())
    }

    /// Ends all streams: the server shuts down. The store writes its remaining entries, if it can.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut jobs) = self.jobs.take() {
            jobs.intake.dismiss();
            jobs.readers.dismiss();
        }
    }
}

/// Returns why a stream is refused: the coordinator is shutting down, or has no store.
fn refuse(round: &Round, outgoing: &Outgoing<ClientEvent>) -> Status {
    outgoing.for_one_connection();
    if round.drains { shutting_down() } else { no_store() }
}
