//! Handles the agent's events.

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{PoolFault, Returned, RunDone};

use super::kept::ReportedOutcome;
use super::{Ledger, Step};

impl Ledger {
    /// Handles an event of the agent. Returns what to report to the coordinator now, if anything.
    pub fn event(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::RunDone(mut done) => {
                let items = (done.first, (done.ends.len() / 4) as u64);
                let (name, attempt) =
                    self.outcome(done.chunk, items, || ReportedOutcome::Done(RunDone::clone(&done)))?;
                (done.chunk, done.attempt) = (name, attempt);
                Some(Event::RunDone(done))
            }
            Event::ItemFault(mut fault) => {
                let items = (fault.item, 1);
                let (name, attempt) = self.outcome(fault.chunk, items, || ReportedOutcome::Fault(fault.clone()))?;
                (fault.chunk, fault.attempt) = (name, attempt);
                Some(Event::ItemFault(fault))
            }
            Event::Returned(back) => self.returned(back),
            Event::PoolStarted(mut started) => {
                let pool = self.pools.numbered(started.pool)?;
                self.pools[pool].started = true;
                self.pools[pool].unhealthy = None;
                started.pool = self.pools[pool].name?;
                Some(Event::PoolStarted(started))
            }
            Event::PoolFault(fault) => self.pool_fault(*fault),
            Event::PoolStopped(mut stopped) => {
                stopped.pool = self.pool_stopped(stopped.pool)?;
                Some(Event::PoolStopped(stopped))
            }
            Event::Output(mut output) => {
                let pool = self.pools.numbered(output.pool)?;
                let pool = &mut self.pools[pool];
                let Some(name) = pool.name else {
                    pool.keep_output(output);
                    return None;
                };
                output.pool = name;
                Some(Event::Output(output))
            }
            Event::Credit(credit) => {
                self.credit = Some(credit);
                Some(event)
            }
            Event::HealthReport(mut unhealthy) if unhealthy.pool != 0 => {
                let pool = self.pools.numbered(unhealthy.pool)?;
                let pool = &mut self.pools[pool];
                pool.unhealthy = Some(unhealthy.reason.clone());
                unhealthy.pool = pool.name?;
                Some(Event::HealthReport(unhealthy))
            }
            Event::HealthReport(unhealthy) => {
                self.unhealthy = Some(unhealthy.clone()).filter(|unhealthy| !unhealthy.reason.is_empty());
                Some(Event::HealthReport(unhealthy))
            }
            Event::Hello(_) | Event::Draining(_) | Event::WastedOutcomes(_) => Some(event),
        }
    }

    /// Records the outcome of `items` (first and count). Returns the coordinator's name of their chunk, and its
    /// attempt; `None`: the outcome is not reported now.
    fn outcome(
        &mut self,
        chunk: u64,
        items: (u64, u64),
        outcome: impl FnOnce() -> ReportedOutcome,
    ) -> Option<(u64, u32)> {
        let Some((key, chunk)) = self.work.find(chunk) else {
            self.wasted += items.1;
            return None;
        };
        if !chunk.pending.remove(items.0, items.1) {
            // Cancelled, or reported before: the first report counts and may be kept.
            self.wasted += items.1;
            return None;
        }
        let known_as = (chunk.name, chunk.attempt);
        let pool = &mut self.pools[chunk.pool as usize];
        let adopted = pool.name.is_some();
        self.reports += u64::from(adopted);
        if !pool.can_be_held() {
            self.work.release_chunk(key);
            return Some(known_as);
        }
        chunk.kept += 1;
        pool.outcomes.push(u32::try_from(key).unwrap_or(u32::MAX), outcome(), self.reports);
        if pool.hold_if_full() {
            self.steps.push(Step::Hold { pool: pool.number, hold: true });
        }
        adopted.then_some(known_as)
    }

    fn returned(&mut self, mut back: Returned) -> Option<Event> {
        let (key, chunk) = self.work.find(back.chunk)?;
        let _ = chunk.pending.remove(back.first, back.count);
        let pool = &mut self.pools[chunk.pool as usize];
        if pool.name.is_none() {
            // The hello to the next coordinator may have listed these items.
            chunk.kept += 1;
            pool.unsent.push(Event::Returned(back));
            return None;
        }
        (back.chunk, back.attempt) = (chunk.name, chunk.attempt);
        self.work.release_chunk(key);
        Some(Event::Returned(back))
    }

    fn pool_fault(&mut self, fault: PoolFault) -> Option<Event> {
        let pool = self.pools.numbered(fault.pool)?;
        let pool = &mut self.pools[pool];
        pool.fault.clone_from(&fault.failure);
        let pool = pool.name?;
        Some(Event::PoolFault(Box::new(PoolFault { pool, ..fault })))
    }

    /// Records that a pool has stopped. Returns the coordinator's name of it.
    fn pool_stopped(&mut self, number: u64) -> Option<u64> {
        let key = self.pools.numbered(number)?;
        self.pools[key].stopped = true;
        let name = self.pools[key].name;
        // Items without an outcome ended with it.
        self.work.end_chunks(self.work.chunks_of(key));
        // Without a name, the coordinator that requested it is gone, and the next one may have the pool resume.
        self.work.pool_ended(key, self.pools[key].stop_requested && name.is_some());
        self.drop_pool_if_done(key);
        while let Some(oldest) = self.pools.next_to_evict() {
            self.drop_pool(oldest);
        }
        name
    }
}
