//! What the agent says.

use farpool_proto::v1::agent_event::Body as Event;
use farpool_proto::v1::{PoolFault, Returned, RunDone};

use super::kept::Outcome;
use super::{Ledger, REMEMBERED, REMEMBERED_BYTES};

impl Ledger {
    /// What the coordinator is told of something that the agent has said; nothing, if it is of no interest, or not now.
    pub fn event(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::RunDone(mut done) => {
                let items = (done.first, (done.ends.len() / 4) as u64);
                let (name, attempt) = self.outcome(done.chunk, items, || Outcome::Done(RunDone::clone(&done)))?;
                (done.chunk, done.attempt) = (name, attempt);
                Some(Event::RunDone(done))
            }
            Event::ItemFault(mut fault) => {
                let items = (fault.item, 1);
                let (name, attempt) = self.outcome(fault.chunk, items, || Outcome::Fault(fault.clone()))?;
                (fault.chunk, fault.attempt) = (name, attempt);
                Some(Event::ItemFault(fault))
            }
            Event::Returned(back) => self.returned(back),
            Event::PoolStarted(mut started) => {
                let pool = self.pool_numbered(started.pool)?;
                self.pools[pool].started = true;
                self.pools[pool].ailing = None;
                started.pool = self.pools[pool].name?;
                Some(Event::PoolStarted(started))
            }
            Event::PoolFault(fault) => self.pool_fault(*fault),
            Event::PoolStopped(mut stopped) => {
                stopped.pool = self.pool_stopped(stopped.pool)?;
                Some(Event::PoolStopped(stopped))
            }
            Event::Output(mut output) => {
                let pool = self.pool_numbered(output.pool)?;
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
            Event::Ailing(mut ailing) if ailing.pool != 0 => {
                let pool = self.pool_numbered(ailing.pool)?;
                let pool = &mut self.pools[pool];
                pool.ailing = Some(ailing.reason.clone());
                ailing.pool = pool.name?;
                Some(Event::Ailing(ailing))
            }
            Event::Ailing(ailing) => {
                self.ailing = Some(ailing.clone()).filter(|ailing| !ailing.reason.is_empty());
                Some(Event::Ailing(ailing))
            }
            Event::Hello(_) | Event::Draining(_) | Event::InVain(_) => Some(event),
        }
    }

    /// Notes the outcome of some items, first and count; returns what the coordinator calls their chunk, and its attempt.
    fn outcome(&mut self, chunk: u64, items: (u64, u64), outcome: impl FnOnce() -> Outcome) -> Option<(u64, u32)> {
        let Some(key) = self.chunks.find(chunk) else {
            self.in_vain += items.1;
            return None;
        };
        let chunk = self.chunks.get_mut(key);
        if !chunk.out.remove(items.0, items.1) {
            // Cancelled, or said before: the first word counts, which may be kept.
            self.in_vain += items.1;
            return None;
        }
        let known_as = (chunk.name, chunk.attempt);
        let at = chunk.pool as usize;
        let pool = &mut self.pools[at];
        let told = pool.name.is_some();
        self.reports += u64::from(told);
        if !pool.can_be_held() {
            self.release_chunk(key);
            return Some(known_as);
        }
        chunk.kept += 1;
        pool.outcomes.push(u32::try_from(key).unwrap_or(u32::MAX), outcome(), self.reports);
        self.mind_what_is_kept(at);
        told.then_some(known_as)
    }

    fn returned(&mut self, mut back: Returned) -> Option<Event> {
        let key = self.chunks.find(back.chunk)?;
        let chunk = self.chunks.get_mut(key);
        let _ = chunk.out.remove(back.first, back.count);
        let pool = &mut self.pools[chunk.pool as usize];
        if pool.name.is_none() {
            // The coordinator that adopts it may have heard that these items are here.
            chunk.kept += 1;
            pool.unsaid.push(Event::Returned(back));
            return None;
        }
        (back.chunk, back.attempt) = (chunk.name, chunk.attempt);
        self.release_chunk(key);
        Some(Event::Returned(back))
    }

    fn pool_fault(&mut self, fault: PoolFault) -> Option<Event> {
        let pool = self.pool_numbered(fault.pool)?;
        let pool = &mut self.pools[pool];
        pool.fault.clone_from(&fault.failure);
        let pool = pool.name?;
        Some(Event::PoolFault(Box::new(PoolFault { pool, ..fault })))
    }

    /// Returns what the coordinator calls the pool.
    fn pool_stopped(&mut self, number: u64) -> Option<u64> {
        let key = self.pool_numbered(number)?;
        self.pools[key].stopped = true;
        let name = self.pools[key].name;
        // What had no outcome went with it.
        for chunk in self.chunks.keys(|chunk| chunk.pool as usize == key) {
            self.chunks.get_mut(chunk).out = Default::default();
            self.release_chunk(chunk);
        }
        let ends = self.pools[key].told_to_stop;
        self.for_jobs_of(key, |job| {
            job.lives = false;
            job.name = job.name.filter(|_| !ends);
        });
        self.drop_pool_if_over(key);
        self.forget_the_oldest();
        name
    }

    pub(super) fn drop_pool_if_over(&mut self, key: usize) {
        if self.pools[key].is_over() {
            self.drop_pool(key);
        }
    }

    /// Pools that are gone are not remembered for ever.
    fn forget_the_oldest(&mut self) {
        loop {
            let gone = self.pools.iter().filter(|(_, pool)| pool.stopped);
            let (count, bytes) =
                gone.clone().fold((0, 0), |(count, bytes), (_, pool)| (count + 1, bytes + pool.outcomes.bytes()));
            if count <= REMEMBERED && (bytes <= REMEMBERED_BYTES || count <= 1) {
                return;
            }
            let Some((oldest, _)) = gone.min_by_key(|(_, pool)| pool.number) else { return };
            self.drop_pool(oldest);
        }
    }

    /// Where the pool is that has this number in the agent.
    fn pool_numbered(&self, number: u64) -> Option<usize> {
        self.pools.iter().find(|(_, pool)| pool.number == number).map(|(key, _)| key)
    }
}
