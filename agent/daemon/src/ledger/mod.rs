//! What the agent holds, in names that outlive a session.
//!
//! The ledger stands between the session with a coordinator and the agent. Pools, jobs and chunks have numbers there
//! that never change; the coordinator's names for them come and go with its sessions. It keeps each outcome until the
//! coordinator says that its client has it, and tells it again to a coordinator that has adopted its chunk.
//!
//! While a session lasts, the ledger only translates, which costs a few lookups for each chunk and none for an item. When a session
//! is given up ([`Ledger::lost`]), its pools are *held*: they go on, what they tell is kept, and the next coordinator
//! hears of them in the hello ([`Ledger::hello`]). It adopts them under new names, or has them stopped.
//!
//! It does nothing by itself: what is to be done about a command or an event is left as [`Step`]s.

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
use farpool_proto::v1::{Ailing, Credit, HeldChunk, HeldPool, InVain, LendSlot, StopPool};
use slab::Slab;

use chunks::{Chunk, Chunks};
use pool::{Job, Pool};

/// What a pool may keep of outcomes, in bytes: above this they stay with its workers, ...
const KEPT_BYTES: usize = 64 << 20;
/// ... and from here on it goes on.
const RELEASED_BYTES: usize = KEPT_BYTES / 2;
/// So many pools are remembered whose processes are gone: of each, late words may come, ...
const REMEMBERED: usize = 1024;
/// ... and outcomes may have to be told again, of which they keep so many bytes together; the last one may have more.
const REMEMBERED_BYTES: usize = 16 << 20;
/// The bit in the numbers of held pools that those of coordinators never have.
const HELD: u64 = 1 << 63;

/// Something that follows from what was said.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The agent is told this, in its own numbers.
    Command(Command),
    /// The agent leaves the outcomes of this pool where they are, or takes them again.
    Hold {
        /// The agent's number for the pool.
        pool: u64,
        /// Whether they are left.
        hold: bool,
    },
    /// This pool of the agent's, which was to stop as soon as it idles, goes on after all.
    KeepOn(u64),
    /// The coordinator is told this, in its own names, behind everything that it was told before.
    Tell(Event),
}

/// See the [module's](self) words.
#[derive(Debug, Default)]
pub struct Ledger {
    pools: Slab<Pool>,
    jobs: Slab<Job>,
    chunks: Chunks,
    /// Where the coordinator's pools and jobs are.
    pool_names: BTreeMap<u64, u32>,
    job_names: BTreeMap<u64, u32>,
    /// Numbers given out to pools, and to jobs.
    numbers: u64,
    /// Reports told in this session.
    reports: u64,
    /// The agent may lend slots because this session has said so.
    lends: bool,
    /// Outcomes that nobody wanted, since their chunks had been given to others; and how many of them the hello counted.
    in_vain: u64,
    said_in_vain: u64,
    /// What the agent said last of itself.
    credit: Option<Credit>,
    ailing: Option<Ailing>,
    steps: Vec<Step>,
}

impl Ledger {
    /// What follows from what was said since the last call, in order.
    pub fn steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// Whether [`Ledger::steps`] has any.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// The session is given up. What has begun here goes on; pools that had not started are not waited for, and those that
    /// nobody could know again are stopped.
    pub fn lost(&mut self) {
        self.pool_names.clear();
        self.job_names.clear();
        self.reports = 0;
        if std::mem::take(&mut self.lends) {
            self.tell_agent(Command::LendSlot(LendSlot::default()));
        }
        for key in self.pool_keys() {
            let empty = !self.has_out(key) && self.pools[key].outcomes.is_empty();
            let pool = &mut self.pools[key];
            pool.name = None;
            self.for_jobs_of(key, |job| job.name = None);
            let pool = &self.pools[key];
            if !(pool.started && pool.can_be_held()) {
                self.steps.push(Step::Command(Command::StopPool(StopPool { pool: pool.number, now: true })));
                self.drop_pool(key);
            } else if empty && (pool.stopped || pool.told_to_stop) {
                self.drop_pool(key);
            }
        }
    }

    /// What the next coordinator is to know of: the pools that are held, and how many outcomes were made in vain since the
    /// last hello that was welcomed.
    pub fn hello(&mut self) -> (Vec<HeldPool>, u64) {
        for key in self.pool_keys() {
            // These items are none of those that it is about to hear of.
            let unsaid = std::mem::take(&mut self.pools[key].unsaid);
            let (returned, others) = unsaid.into_iter().partition(|event| matches!(event, Event::Returned(_)));
            self.pools[key].unsaid = others;
            self.release_returned(returned);
        }
        let mut held: Vec<HeldPool> = self.pools.iter().map(|(key, pool)| self.held_pool(key, pool)).collect();
        held.sort_by_key(|pool| pool.pool);
        self.said_in_vain = self.in_vain;
        (held, self.in_vain)
    }

    /// The coordinator has heard the hello. It is told what the agent said last of itself.
    pub fn welcomed(&mut self) {
        self.in_vain -= std::mem::take(&mut self.said_in_vain);
        let ailing = self.ailing.clone().map(Event::Ailing);
        let credit = self.credit.map(Event::Credit);
        self.steps.extend(ailing.into_iter().chain(credit).map(Step::Tell));
    }

    /// Outcomes that were made in vain since the last word about that, for a coordinator that is there to count them.
    pub fn take_in_vain(&mut self) -> Option<InVain> {
        let items = std::mem::take(&mut self.in_vain);
        (items > 0).then_some(InVain { items })
    }

    /// Everything that it knew of is gone, or as good as gone.
    pub fn clear(&mut self) {
        *self = Ledger {
            numbers: self.numbers,
            in_vain: self.in_vain,
            credit: self.credit,
            ailing: self.ailing.take(),
            chunks: std::mem::take(&mut self.chunks).cleared(),
            ..Ledger::default()
        };
    }

    /// Whether it has pools that no coordinator has adopted.
    pub fn has_held(&self) -> bool {
        self.pools.iter().any(|(_, pool)| pool.name.is_none())
    }

    /// Whether it knows of no pool.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    fn held_pool(&self, key: usize, pool: &Pool) -> HeldPool {
        let mut runs: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
        for (at, chunk) in self.chunks.iter().filter(|(_, chunk)| chunk.pool as usize == key) {
            runs.insert(at, chunk.out.runs().map(|(from, to)| (from, to - from)).collect());
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

    /// Whether items of a pool wait or run.
    fn has_out(&self, key: usize) -> bool {
        self.chunks.iter().any(|(_, chunk)| chunk.pool as usize == key && !chunk.out.is_empty())
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Forgets a pool and all that is of it.
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

    /// Forgets a chunk if nothing is left of it, and then its job.
    fn release_chunk(&mut self, key: usize) {
        if let Some(chunk) = self.chunks.remove_if_over(key) {
            self.release_job(chunk.job);
        }
    }

    /// One chunk of the job less.
    fn release_job(&mut self, key: u32) {
        let job = &mut self.jobs[key as usize];
        job.chunks -= 1;
        if job.is_over() {
            self.jobs.remove(key as usize);
        }
    }

    /// Changes the jobs of a pool, and forgets those that are over.
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
            !job.is_over()
        });
    }

    /// Forgets the chunks of a pool that nobody wants any more; returns how many outcomes were kept of them.
    fn drop_chunks(&mut self, pool: usize, unwanted: impl Fn(&Chunk) -> bool) -> u64 {
        let keys = self.chunks.keys(|chunk| chunk.pool as usize == pool && unwanted(chunk));
        self.drop_chunks_at(pool, keys)
    }

    /// The same with those at these places, which rise.
    fn drop_chunks_at(&mut self, pool: usize, keys: Vec<usize>) -> u64 {
        if keys.is_empty() {
            return 0;
        }
        let dropped = |key: usize| keys.binary_search(&key).is_ok();
        let (chunks, of) = (&self.chunks, &mut self.pools[pool]);
        let purged = of.outcomes.purge(|key| dropped(key as usize));
        of.unsaid.retain(|event| match event {
            Event::Returned(back) => chunks.find(back.chunk).is_some_and(|key| !dropped(key)),
            _ => true,
        });
        for key in keys {
            let chunk = self.chunks.remove(key);
            self.release_job(chunk.job);
        }
        self.let_go_on(pool);
        purged.iter().map(|kept| kept.outcome.items().1).sum()
    }

    /// What was given back is of no interest any more.
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

    /// Holds a pool that keeps too much.
    fn mind_what_is_kept(&mut self, key: usize) {
        let pool = &mut self.pools[key];
        if !pool.on_hold && !pool.stopped && pool.outcomes.bytes() > KEPT_BYTES {
            pool.on_hold = true;
            self.steps.push(Step::Hold { pool: pool.number, hold: true });
        }
    }

    /// Lets a pool go on that keeps less.
    fn let_go_on(&mut self, key: usize) {
        let pool = &mut self.pools[key];
        if pool.on_hold && pool.outcomes.bytes() <= RELEASED_BYTES {
            pool.on_hold = false;
            self.steps.push(Step::Hold { pool: pool.number, hold: false });
        }
    }
}

#[cfg(test)]
mod tests;
