//! Sessions with clients: their jobs by the clients' own numbers, and the memory that items and jobs take.

use std::collections::BTreeMap;

use farpool_core::{JobId, PoolId, Run, Runs, Slab};

use crate::refused::{Refused, RefusedKind};
use crate::{AgentId, ClientId, Principal};

/// All sessions, and the memory of their items and jobs.
#[derive(Default)]
pub(crate) struct Clients {
    all: Slab<ClientId, Client>,
    item_bytes: u64,
    job_bytes: u64,
}

/// A client's session.
pub(crate) struct Client {
    owner: Principal,
    /// Its pool; `None`: it has not opened it.
    pool: Option<PoolId>,
    /// Whether the last message of the session has been sent.
    over: bool,
    closed: Option<ClosedPool>,
    /// Memory of its items.
    item_bytes: u64,
    /// Memory of its jobs, not counting items.
    job_bytes: u64,
    jobs: BTreeMap<u64, JobId>,
    ended: Ended,
}

/// A pool that is gone, and the agents that keep reports of it until the client is known to have them.
pub(crate) struct ClosedPool {
    pub(crate) pool: PoolId,
    pub(crate) agents: Vec<AgentId>,
}

/// The numbers of jobs that have ended.
#[derive(Default)]
struct Ended {
    remembered: Runs,
    /// Numbers below this are forgotten: each such job that is not open may have ended.
    forgotten: u64,
}

/// The most runs of ended jobs' numbers to keep. Clients count their jobs up, so there are few runs. There are many if
/// every other job is cancelled, or was never opened because its argument could not be encoded. Then the lowest are
/// forgotten.
const MAX_NUMBER_RUNS: usize = 1000;

/// A job that a client named by its number.
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
            closed: None,
            item_bytes: 0,
            job_bytes: 0,
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

    /// Returns the client's pool, if it has opened it.
    pub(crate) fn pool_of(&self, id: ClientId) -> Option<PoolId> {
        self.all.get(id)?.pool
    }

    /// The session has ended. The memory of its items and jobs no longer counts: they end with it.
    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.all.remove(id)?;
        self.item_bytes -= client.item_bytes;
        self.job_bytes -= client.job_bytes;
        Some(client)
    }

    /// Counts items that have arrived.
    pub(crate) fn add_item_bytes(&mut self, id: ClientId, bytes: u64) {
        if let Some(client) = self.all.get_mut(id) {
            client.item_bytes += bytes;
            self.item_bytes += bytes;
        }
    }

    /// Items have their outcomes, or are no longer needed.
    #[inline]
    pub(crate) fn forget_item_bytes(&mut self, id: ClientId, bytes: u64) {
        if let Some(client) = self.all.get_mut(id) {
            client.item_bytes -= bytes;
            self.item_bytes -= bytes;
        }
    }

    /// The client has opened a job, which takes this much memory without its items.
    pub(crate) fn open_job(&mut self, id: ClientId, number: u64, job: JobId, cost: u64) {
        if let Some(client) = self.all.get_mut(id) {
            client.jobs.insert(number, job);
            client.job_bytes += cost;
            self.job_bytes += cost;
        }
    }

    /// A job that took `cost` bytes without its items has ended. Returns false if its client is gone.
    pub(crate) fn end_job(&mut self, id: ClientId, number: u64, cost: u64) -> bool {
        let Some(client) = self.all.get_mut(id) else { return false };
        client.job_bytes -= cost;
        self.job_bytes -= cost;
        client.jobs.remove(&number);
        client.ended.note(number);
        true
    }

    /// Returns the memory of all clients' items.
    pub(crate) fn item_bytes(&self) -> u64 {
        self.item_bytes
    }

    /// Returns the memory of all clients' jobs, not counting items.
    pub(crate) fn job_bytes(&self) -> u64 {
        self.job_bytes
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

    /// Whether the number was certainly used for a job.
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

    /// Whether the last message of the session has been sent.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// The last message of the session has been sent.
    pub(crate) fn close_session(&mut self, closed: ClosedPool) {
        self.over = true;
        self.closed = Some(closed);
    }

    /// Returns its pool, if that was gone before the session ended.
    pub(crate) fn into_closed_pool(self) -> Option<ClosedPool> {
        self.closed
    }

    /// Returns the memory of its items.
    pub(crate) fn item_bytes(&self) -> u64 {
        self.item_bytes
    }

    /// Returns the memory of its jobs, not counting items.
    pub(crate) fn job_bytes(&self) -> u64 {
        self.job_bytes
    }

    /// Whether it has certainly opened a job with this number.
    pub(crate) fn has_used(&self, number: u64) -> bool {
        self.jobs.contains_key(&number) || self.ended.has(number)
    }

    /// A job with this number arrived too late to be opened.
    pub(crate) fn job_arrived_late(&mut self, number: u64) {
        self.ended.note(number);
    }

    /// Returns the job with this number, if it has not ended.
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
