//! Detached jobs: the store that keeps them, and for each that has not ended the client of its pool, which is played here.
//!
//! A job comes in on a stream (`intake`), is in the store when it is complete, and runs then in a pool of its own. For the
//! coordinator that pool's client is one like any other; here it is played (`player`): it reads items from disk as far as there
//! is room for them (`feeding`), and writes down what it hears. Agents keep their reports until it is durable. Whoever attaches
//! is sent what is on disk (`readers`). After a restart a job goes on as that of a client does that has lost its
//! coordinator: its pool is opened again.
//!
//! Each of these owns its state, and works on the store by the [`Keeper`](keeper::Keeper). What follows for the others from what one does
//! is said in [`Jobs`]: at once, or when the store has acknowledged something (`durable`).
//!
//! The store is never waited for: it writes by itself, and tasks await what is read. While nothing can be written no
//! further jobs are taken (`refuse`).

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

/// All that has to do with detached jobs.
pub(super) struct Detached {
    /// None: the coordinator keeps none.
    jobs: Option<Jobs>,
}

impl Detached {
    pub(super) fn new(opened: Option<Opened>) -> Self {
        Self { jobs: opened.map(Jobs::new) }
    }

    /// Goes on with what was in the store when it was opened.
    pub(super) fn begin(&mut self, round: &Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.begin(round);
        }
    }

    /// Comes back when something has become of what the store was told; never, if there is none.
    pub(super) async fn written(wakeup: Option<&Wakeup>) {
        match wakeup {
            Some(wakeup) => wakeup.wait().await,
            None => pending().await,
        }
    }

    pub(super) fn wakeup(&self) -> Option<Wakeup> {
        self.jobs.as_ref().map(|jobs| jobs.keeper.store().wakeup())
    }

    /// Whether there is something to do in another round, whatever comes.
    pub(super) fn has_more(&self) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.player.has_more())
    }

    /// When to go round at the latest.
    pub(super) fn next_look(&self, round: &Round) -> Option<u64> {
        self.jobs.as_ref()?.next_look(round)
    }

    /// What is to be done in each round before the coordinator schedules.
    pub(super) fn tend(&mut self, round: &mut Round, was_written: bool) {
        if let Some(jobs) = &mut self.jobs {
            jobs.tend(round, was_written);
        }
    }

    /// Gives the store what there is, if it writes nothing else.
    pub(super) fn write_down(&mut self, round: &mut Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.write_down(round);
        }
    }

    /// Somebody detaches a job.
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

    /// Somebody attaches to a job.
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

    /// What a task has read is here.
    pub(super) fn was_read(&mut self, round: &mut Round, read: WasRead) {
        if let Some(jobs) = &mut self.jobs {
            jobs.was_read(round, read);
        }
    }

    /// The queues of some streams have run low, or nobody reads them any more.
    pub(super) fn look_at_queues(&mut self, round: &Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.intake.look_at_queues(round.now);
            jobs.readers.look_at_queues(&jobs.keeper, round);
        }
    }

    /// Tells the coordinator which tasks wait for unfinished jobs, so that their slots are lent.
    pub(super) fn lend(&self, round: &mut Round) {
        if let Some(jobs) = &self.jobs {
            jobs.readers.lend(&jobs.keeper, round);
        }
    }

    /// Whether this is the client of a detached job's pool.
    pub(super) fn plays(&self, client: ClientId) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.player.job_of(client).is_some())
    }

    /// The clients of pools that are played.
    pub(super) fn played(&self) -> impl Iterator<Item = ClientId> {
        self.jobs.iter().flat_map(|jobs| jobs.player.clients())
    }

    /// Takes what a pool tells its client.
    pub(super) fn post(&mut self, client: ClientId, event: ClientEvent) {
        if let Some(jobs) = &mut self.jobs {
            jobs.player.post(client, event);
        }
    }

    /// Takes in what the pools have told their clients.
    pub(super) fn hear_pools(&mut self, round: &mut Round) {
        if let Some(jobs) = &mut self.jobs {
            jobs.player.hear(&mut jobs.keeper, round);
        }
    }

    /// Whether a job that is being detached waits for this program.
    pub(super) fn wants(&self, digest: Digest) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.intake.wants(digest))
    }

    /// A program has come.
    pub(super) fn program_came(&self, round: &Round, digest: Digest) {
        if let Some(jobs) = &self.jobs {
            jobs.intake.program_came(&jobs.keeper, round, digest);
        }
    }

    /// A program was sent, and cannot be had all the same.
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

    /// Bytes that are held: parts of messages, what waits for the store, and what waits for who has attached.
    pub(super) fn held(&self) -> u64 {
        let held = |jobs: &Jobs| {
            jobs.intake.held() + jobs.readers.holds() + jobs.player.held() + jobs.keeper.store().backlog()
        };
        self.jobs.as_ref().map_or(0, held)
    }

    pub(super) fn status(&self) -> Option<JournalStatus> {
        self.jobs.as_ref().map(|jobs| jobs.keeper.status())
    }

    /// The server ends. The store writes what it has, if it can.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut jobs) = self.jobs.take() {
            jobs.intake.dismiss();
            jobs.readers.dismiss();
        }
    }
}

/// Why nobody is served where no jobs are kept.
fn refuse(round: &Round, outgoing: &Outgoing<ClientEvent>) -> Status {
    outgoing.for_one_connection();
    if round.drains { shutting_down() } else { no_store() }
}
