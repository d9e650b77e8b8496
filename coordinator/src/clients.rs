//! Sessions with clients.

use std::collections::BTreeMap;

use farpool_core::{Event, JobId, PoolId, Run, Runs, Window};

use crate::convert::{Batch, FromClient, JobAsked};
use crate::coordinator::Coordinator;
use crate::jobs::Job;
use crate::outbox::Outbox;
use crate::rate::Rate;
use crate::refused::{Refused, RefusedKind};
use crate::reopen::{NewJob, Reopening};
use crate::store::Store;
use crate::{AgentId, ClientId, Principal};

/// A client's session.
pub(crate) struct Client {
    owner: Principal,
    /// Its pool; none: it has not opened it.
    pub(crate) pool: Option<PoolId>,
    /// Whether the last message of the session is out.
    pub(crate) over: bool,
    /// Its pool, which is gone, and the agents that keep reports of it until it is known that the client has them.
    pub(crate) parting: Option<(PoolId, Vec<AgentId>)>,
    /// What its items take.
    pub(crate) stored: u64,
    /// What its jobs take beside.
    pub(crate) opened: u64,
    jobs: BTreeMap<u64, JobId>,
    ended: Ended,
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
enum Named {
    Open(JobId),
    /// It has ended, which the client may not have known.
    Ended,
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
    pub(crate) fn of(owner: Principal) -> Self {
        Self {
            owner,
            pool: None,
            over: false,
            parting: None,
            stored: 0,
            opened: 0,
            jobs: BTreeMap::new(),
            ended: Ended::default(),
        }
    }

    /// The job is over.
    pub(crate) fn job_ended(&mut self, number: u64) {
        self.jobs.remove(&number);
        self.ended.note(number);
    }

    /// The job of that number, if it has not ended.
    pub(crate) fn open_job(&self, number: u64) -> Option<JobId> {
        self.jobs.get(&number).copied()
    }

    pub(crate) fn open_jobs(&self) -> impl Iterator<Item = JobId> {
        self.jobs.values().copied()
    }

    fn named(&self, number: u64) -> Result<Named, Refused> {
        match self.jobs.get(&number) {
            Some(&job) => Ok(Named::Open(job)),
            None if self.ended.may_have(number) => Ok(Named::Ended),
            None => Err(RefusedKind::UnknownJob(number).into()),
        }
    }
}

impl Coordinator {
    pub(crate) fn client_says(&mut self, from: ClientId, message: FromClient, out: &mut Outbox) -> Result<(), Refused> {
        let client = self.clients.get(from).filter(|client| !client.over).ok_or(RefusedKind::NoSession)?;
        match (client.pool, message) {
            (Some(_), FromClient::OpenPool(_)) => Err(RefusedKind::Repeated("OpenPool").into()),
            (None, FromClient::OpenPool(asked)) => {
                if let Some(ticket) = asked.ticket {
                    self.lends.open(from, ticket);
                }
                let owner = client.owner.clone();
                let pool = self.open_pool(from, owner, *asked, out);
                self.clients.get_mut(from).expect("it was just found").pool = Some(pool);
                Ok(())
            }
            (None, _) => Err(RefusedKind::NotFirst("OpenPool").into()),
            (Some(pool), FromClient::OpenJob { job, asked }) => self.open_job(from, pool, job, asked, out),
            (Some(_), FromClient::Items { job, batch }) => self.items(from, job, batch),
            (Some(_), FromClient::EndItems { job }) => self.end_items(from, job, out),
            (Some(_), FromClient::StopRetries { job }) => self.client_stops_retries(from, job, out),
            (Some(_), FromClient::CancelJob { job }) => self.client_cancels(from, job, out),
            (Some(pool), FromClient::PoolReopened) => match self.pool_is_complete(pool, out) {
                true => Ok(()),
                false => Err(RefusedKind::NotReopening.into()),
            },
            (Some(_), FromClient::AwaitingItems { waits }) => {
                self.lends.note_waiting(from, waits);
                Ok(())
            }
            (Some(pool), FromClient::ClosePool { now }) => {
                self.close_pool(pool, now, out);
                Ok(())
            }
        }
    }

    pub(crate) fn forget_client(&mut self, id: ClientId, out: &mut Outbox) {
        let Some(client) = self.clients.remove(id) else { return };
        self.lends.close(id);
        if let Some((pool, agents)) = client.parting {
            self.settle_pool_at(pool, agents, out);
        }
        let Some(pool) = client.pool else { return };
        self.settle_all(pool);
        self.close_pool(pool, true, out);
    }

    fn open_job(
        &mut self,
        from: ClientId,
        pool: PoolId,
        number: u64,
        asked: JobAsked,
        out: &mut Outbox,
    ) -> Result<(), Refused> {
        let client = self.clients.get_mut(from).ok_or(RefusedKind::NoSession)?;
        if client.jobs.contains_key(&number) || client.ended.has(number) {
            return Err(RefusedKind::JobNumberUsed(number).into());
        }
        let state = self.pools.get_mut(pool).ok_or(RefusedKind::NoSession)?;
        if !state.takes_jobs() {
            if !state.has_failed() {
                return Err(RefusedKind::PoolClosed.into());
            }
            // The client could not know yet. What it sends for the job comes as late as the job itself.
            self.late_messages += 1;
            client.job_ended(number);
            return Ok(());
        }
        let JobAsked { function, timeout_ns, policy, label, require } = asked;
        let window = Window::new(self.config.window, policy.chunksize);
        let (labels, requires) = (self.labels.take(&require), !require.is_empty());
        let job = self.jobs.insert(Job {
            pool,
            number,
            name: self.next_name,
            function,
            timeout_ns,
            whole_chunks: policy.chunksize.is_some(),
            payload_limit: state.payload_limit(),
            input_ended: false,
            label,
            priority: policy.priority,
            require,
            opened_at: self.now,
            failed: 0,
            rate: Rate::default(),
            store: Store::new(window),
        });
        self.next_name += 1;
        let cost = self.jobs.get(job).map_or(0, Job::own_cost);
        self.opened += cost;
        client.opened += cost;
        client.jobs.insert(number, job);
        state.open_jobs += 1;
        match &mut state.reopening {
            Some(reopening) => reopening.add(NewJob::new(job, policy, labels)),
            None => {
                self.core.handle(Event::JobOpened { job, pool, policy, require: labels }, self.now, &mut self.actions)
            }
        }
        if requires {
            self.review(pool, out);
        }
        Ok(())
    }

    fn items(&mut self, from: ClientId, number: u64, batch: Batch) -> Result<(), Refused> {
        let reopening = self.reopening(from).map(Reopening::is_complete);
        let Some((id, job)) = self.job_with_input(from, number)? else { return Ok(()) };
        let (first, count, bytes, next) = (batch.first, batch.count, batch.bytes(), job.store.next());
        if first < next {
            return Err(RefusedKind::IndexTooLow { first, next }.into());
        }
        if let Some((item, bytes)) = batch.longer_than(job.payload_limit) {
            return Err(RefusedKind::ItemTooLarge { item, bytes, limit: job.payload_limit }.into());
        }
        // What was granted by a former coordinator comes again, however much that is.
        if let Some(limit) = job.store.overrun().filter(|_| reopening != Some(false)) {
            return Err(RefusedKind::WindowOverrun { job: number, limit }.into());
        }
        let before = job.store.cost();
        job.store.keep(batch);
        let more = job.store.cost() - before;
        self.stored += more;
        self.clients.get_mut(from).expect("it was just found").stored += more;
        if reopening.is_none() {
            self.core.handle(Event::ItemsArrived { job: id, first, count, bytes }, self.now, &mut self.actions);
        }
        Ok(())
    }

    fn end_items(&mut self, from: ClientId, number: u64, out: &mut Outbox) -> Result<(), Refused> {
        let reopening = self.reopening(from).is_some();
        let Some((id, job)) = self.job_with_input(from, number)? else { return Ok(()) };
        job.input_ended = true;
        if !reopening {
            self.feed(Event::InputEnded { job: id }, out);
        }
        Ok(())
    }

    /// Whether the client's pool was open before, and not all of it has been said again.
    pub fn is_reopening(&self, client: ClientId) -> bool {
        self.reopening(client).is_some()
    }

    /// What is kept of the client's pool until it has been opened again; none: the core knows the pool.
    pub(crate) fn reopening(&self, client: ClientId) -> Option<&Reopening> {
        self.pools.get(self.clients.get(client)?.pool?)?.reopening.as_ref()
    }

    fn client_stops_retries(&mut self, from: ClientId, number: u64, out: &mut Outbox) -> Result<(), Refused> {
        let client = self.clients.get(from).ok_or(RefusedKind::NoSession)?;
        let (job, pool) = match client.named(number)? {
            Named::Open(job) => (job, client.pool),
            Named::Ended => {
                self.late_messages += 1;
                return Ok(());
            }
        };
        match pool.and_then(|pool| self.pools.get_mut(pool)?.reopening.as_mut()) {
            Some(reopening) => reopening.stop_retries(job),
            None => self.feed(Event::RetriesStopped { job }, out),
        }
        Ok(())
    }

    fn client_cancels(&mut self, from: ClientId, number: u64, out: &mut Outbox) -> Result<(), Refused> {
        match self.clients.get(from).ok_or(RefusedKind::NoSession)?.named(number)? {
            Named::Open(job) => self.cancel(job, out),
            Named::Ended => self.late_messages += 1,
        }
        Ok(())
    }

    /// The job for which the client sends input; none: it has ended meanwhile.
    fn job_with_input(&mut self, from: ClientId, number: u64) -> Result<Option<(JobId, &mut Job)>, Refused> {
        let id = match self.clients.get(from).ok_or(RefusedKind::NoSession)?.named(number)? {
            Named::Open(id) => id,
            Named::Ended => {
                self.late_messages += 1;
                return Ok(None);
            }
        };
        let job = self.jobs.get_mut(id).expect("a client's job is kept until it has ended");
        if job.input_ended { Err(RefusedKind::InputEnded(number).into()) } else { Ok(Some((id, job))) }
    }
}
