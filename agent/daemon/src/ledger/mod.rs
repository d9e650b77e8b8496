//! The ledger: what the agent holds, under numbers that outlive a session.
//!
//! The ledger sits between the session with a coordinator and the agent. For the agent, pools, jobs and chunks have
//! numbers that never change. The coordinator's names for them change with its sessions. The ledger keeps each outcome
//! until the coordinator says that its client has it. It resends it to a coordinator that has adopted its chunk.
//!
//! During a session the ledger only translates, which costs a few lookups for each chunk and none for an item. When a
//! session is lost ([`Ledger::session_lost`]), its pools are *held*: they keep running, and what they report is kept. The next
//! coordinator learns about them in the hello ([`Ledger::hello`]). It adopts them under new names, or stops them.
//!
//! It does nothing by itself: commands and events result in [`Step`]s.

mod adopt;
mod assign;
mod chunks;
mod commands;
mod events;
mod items;
mod kept;
mod pool;

use std::collections::BTreeMap;

use bytes::Bytes;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Credit, HealthReport, HeldChunk, HeldPool, LendSlot, StopPool, WastedOutcomes};
use slab::Slab;

use chunks::{Chunk, Chunks};
use pool::{Job, Pool};

/// Kept outcomes of a pool, in bytes, above which new ones stay with its workers.
const HOLD_BYTES: usize = 64 << 20;
/// The level at which the pool resumes.
const RESUME_BYTES: usize = HOLD_BYTES / 2;
/// Most stopped pools that are remembered, because messages about them may still arrive.
const MAX_STOPPED_POOLS: usize = 1024;
/// Most bytes of outcomes that stopped pools keep for a resend, all together; the last pool may keep more.
const MAX_STOPPED_BYTES: usize = 16 << 20;
/// The bit that marks the numbers of held pools; coordinators never set it.
const HELD: u64 = 1 << 63;

/// An action that follows from a command or an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Sends this command to the agent, in its own numbers.
    Command(Command),
    /// Stops or resumes reading the outcomes of a pool.
    Hold {
        /// The agent's number for the pool.
        pool: u64,
        /// Whether reading stops.
        hold: bool,
    },
    /// Cancels the stop of a pool that was to stop when idle.
    CancelStop(u64),
    /// Sends this event to the coordinator, in its names, after all earlier ones.
    Send(Event),
}

/// The ledger; see the [module](self).
#[derive(Debug, Default)]
pub struct Ledger {
    pools: Slab<Pool>,
    jobs: Slab<Job>,
    chunks: Chunks,
    /// The coordinator's names of pools, and where these are.
    pool_names: BTreeMap<u64, u32>,
    job_names: BTreeMap<u64, u32>,
    /// The latest number of a pool or job.
    numbers: u64,
    /// Number of reports in this session.
    reports: u64,
    /// Whether this session has told the agent to lend slots.
    lends: bool,
    /// Number of late outcomes: their chunks were assigned to others.
    wasted: u64,
    reported_wasted: u64,
    /// The agent's last reported credit.
    credit: Option<Credit>,
    unhealthy: Option<HealthReport>,
    steps: Vec<Step>,
}

impl Ledger {
    /// Returns the steps since the last call, in order.
    pub fn steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Returns whether [`Ledger::steps`] has any.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Ends the session. Running pools stay, for the next coordinator to adopt. A pool is stopped if it has not started, or if it has no
    /// id by which a coordinator could recognize it.
    pub fn session_lost(&mut self) {
        self.pool_names.clear();
        self.job_names.clear();
        self.reports = 0;
        if std::mem::take(&mut self.lends) {
            self.send_to_agent(Command::LendSlot(LendSlot::default()));
        }
        for key in self.pool_keys() {
            let empty = !self.has_pending(key) && self.pools[key].outcomes.is_empty();
            let pool = &mut self.pools[key];
            pool.name = None;
            self.for_jobs_of(key, |job| job.name = None);
            let pool = &self.pools[key];
            if !(pool.started && pool.can_be_held()) {
                self.steps.push(Step::Command(Command::StopPool(StopPool { pool: pool.number, now: true })));
                self.drop_pool(key);
            } else if empty && (pool.stopped || pool.stop_requested) {
                self.drop_pool(key);
            }
        }
    }

    /// Returns the content of the next hello: the held pools, and the number of late outcomes since the last accepted
    /// hello.
    pub fn hello(&mut self) -> (Vec<HeldPool>, u64) {
        for key in self.pool_keys() {
            // The hello does not list these items.
            let unsent = std::mem::take(&mut self.pools[key].unsent);
            let (returned, others) = unsent.into_iter().partition(|event| matches!(event, Event::Returned(_)));
            self.pools[key].unsent = others;
            self.release_returned(returned);
        }
        let mut held: Vec<HeldPool> = self.pools.iter().map(|(key, pool)| self.held_pool(key, pool)).collect();
        held.sort_by_key(|pool| pool.pool);
        self.reported_wasted = self.wasted;
        (held, self.wasted)
    }

    /// Handles the coordinator's welcome: resends the agent's credit and health.
    pub fn welcomed(&mut self) {
        self.wasted -= std::mem::take(&mut self.reported_wasted);
        let unhealthy = self.unhealthy.clone().map(Event::HealthReport);
        let credit = self.credit.map(Event::Credit);
        self.steps.extend(unhealthy.into_iter().chain(credit).map(Step::Send));
    }

    /// Returns the number of late outcomes since the last report.
    pub fn take_wasted(&mut self) -> Option<WastedOutcomes> {
        let items = std::mem::take(&mut self.wasted);
        (items > 0).then_some(WastedOutcomes { items })
    }

    /// Forgets everything: all pools have ended or are being killed.
    pub fn clear(&mut self) {
        *self = Ledger {
            numbers: self.numbers,
            wasted: self.wasted,
            credit: self.credit,
            unhealthy: self.unhealthy.take(),
            chunks: std::mem::take(&mut self.chunks).cleared(),
            ..Ledger::default()
        };
    }

    /// Returns whether it has pools that no coordinator has adopted.
    pub fn has_held(&self) -> bool {
        self.pools.iter().any(|(_, pool)| pool.name.is_none())
    }

    /// Returns whether it has no pools.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    fn held_pool(&self, key: usize, pool: &Pool) -> HeldPool {
        let mut runs: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
        for (at, chunk) in self.chunks.iter().filter(|(_, chunk)| chunk.pool as usize == key) {
            runs.insert(at, chunk.pending.runs().map(|(from, to)| (from, to - from)).collect());
        }
        for kept in pool.outcomes.iter() {
            runs.entry(kept.chunk as usize).or_default().push(kept.outcome.items());
        }
        let held_chunk = |(at, mut runs): (usize, Vec<(u64, u64)>)| {
            let chunk = self.chunks.get(at);
            runs.sort_unstable();
            HeldChunk {
                chunk: self.chunks.number(at),
                job: self.jobs[chunk.job as usize].start.number,
                attempt: chunk.attempt,
                first: chunk.first,
                runs: runs.into_iter().flat_map(|(first, count)| [first, count]).collect(),
            }
        };
        HeldPool {
            pool: pool.number | HELD,
            id: Bytes::clone(&pool.start.id),
            owner: pool.start.owner.clone(),
            processes: pool.start.processes,
            chunks: runs.into_iter().map(held_chunk).collect(),
        }
    }

    fn pool_keys(&self) -> Vec<usize> {
        self.pools.iter().map(|(key, _)| key).collect()
    }

    /// Returns whether a pool has queued or running items.
    fn has_pending(&self, key: usize) -> bool {
        self.chunks.iter().any(|(_, chunk)| chunk.pool as usize == key && !chunk.pending.is_empty())
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Removes a pool with its jobs and chunks.
    fn drop_pool(&mut self, key: usize) {
        let of_pool = |pool: u32| pool as usize == key;
        for chunk in self.chunks.keys(|chunk| of_pool(chunk.pool)) {
            self.chunks.remove(chunk);
        }
        self.jobs.retain(|_, job| !of_pool(job.pool));
        let jobs = &self.jobs;
        self.job_names.retain(|_, job| jobs.contains(*job as usize));
        let pool = self.pools.remove(key);
        if let Some(name) = pool.name {
            self.pool_names.remove(&name);
        }
    }

    /// Removes a chunk if it is done, and then its job.
    fn release_chunk(&mut self, key: usize) {
        if let Some(chunk) = self.chunks.remove_if_done(key) {
            self.release_job(chunk.job);
        }
    }

    /// Counts one chunk of the job less, and removes the job if it is done.
    fn release_job(&mut self, key: u32) {
        let job = &mut self.jobs[key as usize];
        job.chunks -= 1;
        if job.is_done() {
            self.jobs.remove(key as usize);
        }
    }

    /// Changes the jobs of a pool, then removes the finished ones.
    fn for_jobs_of(&mut self, pool: usize, mut change: impl FnMut(&mut Job)) {
        let names = &mut self.job_names;
        self.jobs.retain(|_, job| {
            if job.pool as usize != pool {
                return true;
            }
            let before = job.name;
            change(job);
            if let Some(name) = before.filter(|_| job.name != before) {
                names.remove(&name);
            }
            !job.is_done()
        });
    }

    /// Removes the unwanted chunks of a pool. Returns the number of their kept outcomes.
    fn drop_chunks(&mut self, pool: usize, unwanted: impl Fn(&Chunk) -> bool) -> u64 {
        let keys = self.chunks.keys(|chunk| chunk.pool as usize == pool && unwanted(chunk));
        self.drop_chunks_at(pool, keys)
    }

    /// Removes the chunks with these keys, which must be sorted. Returns the number of their kept outcomes.
    fn drop_chunks_at(&mut self, pool: usize, keys: Vec<usize>) -> u64 {
        if keys.is_empty() {
            return 0;
        }
        let dropped = |key: usize| keys.binary_search(&key).is_ok();
        let (chunks, of) = (&self.chunks, &mut self.pools[pool]);
        let purged = of.outcomes.purge(|key| dropped(key as usize));
        of.unsent.retain(|event| match event {
            Event::Returned(back) => chunks.find(back.chunk).is_some_and(|key| !dropped(key)),
            _ => true,
        });
        for key in keys {
            let chunk = self.chunks.remove(key);
            self.release_job(chunk.job);
        }
        self.resume_if_drained(pool);
        purged.iter().map(|kept| kept.outcome.items().1).sum()
    }

    /// Releases the chunks of returned items.
    fn release_returned(&mut self, returned: Vec<Event>) {
        for event in returned {
            if let Event::Returned(back) = event
                && let Some(key) = self.chunks.find(back.chunk)
            {
                self.chunks.get_mut(key).kept -= 1;
                self.release_chunk(key);
            }
        }
    }

    /// Holds a pool that keeps too many outcomes.
    fn hold_if_full(&mut self, key: usize) {
        let pool = &mut self.pools[key];
        if !pool.on_hold && !pool.stopped && pool.outcomes.bytes() > HOLD_BYTES {
            pool.on_hold = true;
            self.steps.push(Step::Hold { pool: pool.number, hold: true });
        }
    }

    /// Resumes a held pool that keeps few outcomes again.
    fn resume_if_drained(&mut self, key: usize) {
        let pool = &mut self.pools[key];
        if pool.on_hold && pool.outcomes.bytes() <= RESUME_BYTES {
            pool.on_hold = false;
            self.steps.push(Step::Hold { pool: pool.number, hold: false });
        }
    }
}

#[cfg(test)]
mod tests;
