//! Sessions with clients: their jobs by the clients' own numbers, and what these take.

use std::collections::BTreeMap;

use farpool_core::{JobId, PoolId, Run, Runs, Slab};

use crate::refused::{Refused, RefusedKind};
use crate::{AgentId, ClientId, Principal};

/// All sessions, and what their items and jobs take.
#[derive(Default)]
pub(crate) struct Clients {
    all: Slab<ClientId, Client>,
    stored: u64,
    opened: u64,
}

/// A client's session.
pub(crate) struct Client {
    owner: Principal,
    /// Its pool; none: it has not opened it.
    pool: Option<PoolId>,
    /// Whether the last message of the session is out.
    over: bool,
    parting: Option<Parting>,
    /// What its items take.
    stored: u64,
    /// What its jobs take beside.
    opened: u64,
    jobs: BTreeMap<u64, JobId>,
    ended: Ended,
}

/// A pool that is gone, and the agents that keep reports of it until it is known that the client has them.
pub(crate) struct Parting {
    pub(crate) pool: PoolId,
    pub(crate) agents: Vec<AgentId>,
}

/// The numbers of jobs that have ended.
#[derive(Default)]
struct Ended {
    remembered: Runs,
    /// Below this nothing is remembered: each job with such a number that is not open may have ended.
    forgotten: u64,
}

/// Clients count their jobs up, so the numbers of those that have ended make up few runs. They make up many where every
/// other job is cancelled, or was never opened since its argument could not be encoded: then the lowest are forgotten.
const MAX_NUMBER_RUNS: usize = 1000;

/// A job as a client named it.
pub(crate) enum Named {
    Open(JobId),
    /// It has ended, which the client may not have known.
    Ended,
}

impl Clients {
    pub(crate) fn connect(&mut self, owner: Principal) -> ClientId {
        self.all.insert(Client {
            owner,
            pool: None,
            over: false,
            parting: None,
            stored: 0,
            opened: 0,
            jobs: BTreeMap::new(),
            ended: Ended::default(),
        })
    }

    #[inline]
    pub(crate) fn get(&self, id: ClientId) -> Option<&Client> {
        self.all.get(id)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.all.get_mut(id)
    }

    pub(crate) fn contains(&self, id: ClientId) -> bool {
        self.all.get(id).is_some()
    }

    /// The client's pool, if it has opened it.
    pub(crate) fn pool_of(&self, id: ClientId) -> Option<PoolId> {
        self.all.get(id)?.pool
    }

    /// The session has ended. What its items and jobs take counts no more: they end with it.
    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.all.remove(id)?;
        self.stored -= client.stored;
        self.opened -= client.opened;
        Some(client)
    }

    /// More of the client's items are here.
    pub(crate) fn add_stored(&mut self, id: ClientId, bytes: u64) {
        if let Some(client) = self.all.get_mut(id) {
            client.stored += bytes;
            self.stored += bytes;
        }
    }

    /// Items have their outcomes, or are not wanted any more.
    #[inline]
    pub(crate) fn forget_stored(&mut self, id: ClientId, bytes: u64) {
        if let Some(client) = self.all.get_mut(id) {
            client.stored -= bytes;
            self.stored -= bytes;
        }
    }

    /// The client has opened a job, which takes so much beside its items.
    pub(crate) fn open_job(&mut self, id: ClientId, number: u64, job: JobId, cost: u64) {
        if let Some(client) = self.all.get_mut(id) {
            client.jobs.insert(number, job);
            client.opened += cost;
            self.opened += cost;
        }
    }

    /// A job has ended that took so much beside its items. False: its client is gone.
    pub(crate) fn end_job(&mut self, id: ClientId, number: u64, cost: u64) -> bool {
        let Some(client) = self.all.get_mut(id) else { return false };
        client.opened -= cost;
        self.opened -= cost;
        client.jobs.remove(&number);
        client.ended.note(number);
        true
    }

    /// What the items of all clients take.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// What the jobs of all clients take beside.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }
}

impl Ended {
    fn note(&mut self, number: u64) {
        if number < self.forgotten {
            return;
        }
        let fresh = self.remembered.insert(Run::new(number, 1));
        debug_assert!(fresh, "a job ended twice");
        if self.remembered.len() > MAX_NUMBER_RUNS
            && let Some(lowest) = self.remembered.pop_first()
        {
            self.forgotten = lowest.end();
        }
    }

    /// Whether the number was used for a job, for certain.
    fn has(&self, number: u64) -> bool {
        self.remembered.contains(number)
    }

    fn may_have(&self, number: u64) -> bool {
        number < self.forgotten || self.has(number)
    }
}

impl Client {
    pub(crate) fn owner(&self) -> &Principal {
        &self.owner
    }

    pub(crate) fn pool(&self) -> Option<PoolId> {
        self.pool
    }

    pub(crate) fn set_pool(&mut self, pool: PoolId) {
        self.pool = Some(pool);
    }

    /// Whether the last message of the session is out.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The last message of the session is out.
    pub(crate) fn part(&mut self, parting: Parting) {
        self.over = true;
        self.parting = Some(parting);
    }

    /// Its pool, if that was gone before the session.
    pub(crate) fn into_parting(self) -> Option<Parting> {
        self.parting
    }

    /// What its items take.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// What its jobs take beside.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether it has opened a job with this number, for certain.
    pub(crate) fn has_used(&self, number: u64) -> bool {
        self.jobs.contains_key(&number) || self.ended.has(number)
    }

    /// A job with this number has come when it could not be opened any more.
    pub(crate) fn job_came_late(&mut self, number: u64) {
        self.ended.note(number);
    }

    /// The job of that number, if it has not ended.
    pub(crate) fn open_job(&self, number: u64) -> Option<JobId> {
        self.jobs.get(&number).copied()
    }

    pub(crate) fn open_jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.values().copied()
    }

    pub(crate) fn named(&self, number: u64) -> Result<Named, Refused> {
        match self.jobs.get(&number) {
            Some(&job) => Ok(Named::Open(job)),
            None if self.ended.may_have(number) => Ok(Named::Ended),
            None => Err(RefusedKind::UnknownJob(number).into()),
        }
    }
}
