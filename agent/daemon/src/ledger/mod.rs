//! The ledger: everything that the agent holds, under numbers that outlive a session.
//!
//! The ledger sits between the session with a coordinator and the agent. For the agent, pools, jobs and chunks have
//! numbers that never change. The coordinator's names for them change with its sessions. The ledger keeps each outcome
//! until the coordinator reports that the client has it, and resends it to a coordinator that has adopted its chunk.
//!
//! During a session the ledger only translates, which costs a few lookups for each chunk and none for an item. When a
//! session is lost ([`Ledger::session_lost`]), its pools are *held*: they keep running, and what they report is kept.
//! The next coordinator learns about them in the hello ([`Ledger::hello`]). It adopts them under new names, or stops
//! them.
//!
//! It does nothing by itself: commands and events result in [`Step`]s. Its parts own the state, and do not know each
//! other: `KnownPools` the pools with the outcomes that they keep, `Work` the jobs and chunks.

mod chunks;
mod commands;
mod events;
mod items;
mod kept;
mod numbers;
mod pool;
mod pools;
mod work;

use std::collections::BTreeMap;

use bytes::Bytes;
use farpool_proto::v1::agent_command::Body as Command;
use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{Credit, HealthReport, HeldChunk, HeldPool, LendSlot, StopPool, WastedOutcomes};

use numbers::Numbers;
use pool::Pool;
use pools::{HELD, KnownPools};
use work::Work;

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
    pools: KnownPools,
    work: Work,
    numbers: Numbers,
    /// Number of reports in this session.
    reports: u64,
    /// Whether this session has told the agent to lend slots.
    lends: bool,
    /// Number of late outcomes: their chunks were cancelled, or not adopted.
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

    /// Ends the session. Running pools stay, for the next coordinator to adopt. A pool is stopped if it has not
    /// started, or has no id by which a coordinator could recognize it.
    pub fn session_lost(&mut self) {
        self.pools.clear_names();
        self.work.clear_names();
        self.reports = 0;
        if std::mem::take(&mut self.lends) {
            self.send_to_agent(Command::LendSlot(LendSlot::default()));
        }
        for key in self.pools.keys() {
            let empty = !self.work.has_pending(key) && self.pools[key].outcomes.is_empty();
            self.work.unname_jobs_of(key);
            let pool = &self.pools[key];
            if !(pool.started && pool.can_be_held()) {
                let pool = pool.number;
                self.send_to_agent(Command::StopPool(StopPool { pool, now: true }));
                self.drop_pool(key);
            } else if empty && (pool.stopped || pool.stop_requested) {
                self.drop_pool(key);
            }
        }
    }

    /// Returns the content of the next hello: the held pools, and the number of late outcomes since the last accepted
    /// hello.
    pub fn hello(&mut self) -> (Vec<HeldPool>, u64) {
        for key in self.pools.keys() {
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
            work: std::mem::take(&mut self.work).into_empty(),
            ..Ledger::default()
        };
    }

    /// Returns whether it has pools that no coordinator has adopted.
    pub fn has_held(&self) -> bool {
        self.pools.has_held()
    }

    /// Returns whether it has no pools.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    fn held_pool(&self, key: usize, pool: &Pool) -> HeldPool {
        let mut runs: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
        for (at, chunk) in self.work.chunks().filter(|(_, chunk)| chunk.pool as usize == key) {
            runs.insert(at, chunk.pending.runs().map(|(from, to)| (from, to - from)).collect());
        }
        for kept in pool.outcomes.iter() {
            runs.entry(kept.chunk as usize).or_default().push(kept.outcome.items());
        }
        let held_chunk = |(at, mut runs): (usize, Vec<(u64, u64)>)| {
            let chunk = self.work.chunk(at);
            runs.sort_unstable();
            HeldChunk {
                chunk: self.work.number_of(at),
                job: self.work.number_of_job(chunk.job),
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
            shared: self.work.shared_of(key),
        }
    }

    fn send_to_agent(&mut self, command: Command) {
        self.steps.push(Step::Command(command));
    }

    /// Removes a pool with its jobs and chunks.
    fn drop_pool(&mut self, key: usize) {
        self.work.remove_pool(key);
        self.pools.remove(key);
    }

    fn drop_pool_if_done(&mut self, key: usize) {
        if self.pools[key].is_done() {
            self.drop_pool(key);
        }
    }

    /// Removes the chunks of a pool with these keys, which must be sorted. Returns the number of their kept outcomes.
    fn drop_chunks(&mut self, pool: usize, keys: Vec<usize>) -> u64 {
        if keys.is_empty() {
            return 0;
        }
        let (work, dropped) = (&self.work, |key: usize| keys.binary_search(&key).is_ok());
        let purged = self.pools[pool]
            .purge(|key| dropped(key as usize), |number| work.key_of(number).is_some_and(|key| !dropped(key)));
        self.work.remove_chunks(keys);
        self.resume_if_drained(pool);
        purged
    }

    /// Releases the chunks of returned items.
    fn release_returned(&mut self, returned: Vec<Event>) {
        for event in returned {
            if let Event::Returned(back) = event
                && let Some(key) = self.work.key_of(back.chunk)
            {
                self.work.release_kept(key);
            }
        }
    }

    /// Resumes a held pool that keeps few outcomes again.
    fn resume_if_drained(&mut self, key: usize) {
        let pool = &mut self.pools[key];
        if pool.resume_if_drained() {
            self.steps.push(Step::Hold { pool: pool.number, hold: false });
        }
    }
}

#[cfg(test)]
mod tests;
