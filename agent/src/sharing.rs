//! Shares an agent's slots between its pools, and computes its credit and health.

use farpool_proto::v1::HealthReport;

use crate::pool::{Allowance, Census, WorkerPool};
use crate::slots::{self, Demand, Share};

/// Most blocked chunks, of all pools, that the credit compensates for.
const MAX_BLOCKED: usize = 1024;

/// The state that is kept from one round to the next.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    demands: Vec<Demand>,
    shares: Vec<Share>,
    census: Vec<Census>,
    allowances: Vec<Allowance>,
    /// When the first turn ends.
    turn_ends: Option<u64>,
    /// When something is due that no descriptor reports.
    pub(crate) due: Option<u64>,
    /// Chunks beyond those that run, as of the last time that any pool had chunks.
    ahead: usize,
    /// Pools were started, ended or resized since `ahead` was computed.
    pub(crate) pools_changed: bool,
    /// The credit that was last reported to the coordinator.
    credit: Option<u32>,
    /// The coordinator was last told that no pool can serve, because workers die at startup.
    unhealthy: bool,
    /// When the coordinator was last told that some pool can serve again.
    recovered_at: Option<u64>,
}

/// How long after a reported recovery the next problem is reported, in ns. Some workers become ready and die in turn.
pub(crate) const REPORT_AGAIN_AFTER_NS: u64 = 1_000_000_000;

impl Sharing {
    /// Returns whether nothing can run here.
    pub(crate) fn is_unhealthy(&self) -> bool {
        self.unhealthy
    }

    /// Begins a round.
    pub(crate) fn begin(&mut self) {
        self.due = None;
    }

    /// Decides how many workers each pool may have and run, given the census of each.
    pub(crate) fn share(
        &mut self,
        census: impl Iterator<Item = Census>,
        slots: usize,
        draining: bool,
        now: u64,
    ) -> &[Allowance] {
        self.census.clear();
        self.census.extend(census);
        let unchanged = self.demands.iter().eq(self.census.iter().map(|census| &census.demand));
        if !unchanged || self.turn_ends.is_some_and(|end| now >= end) {
            self.demands.clear();
            self.demands.extend(self.census.iter().map(|census| census.demand));
            self.turn_ends = slots::share(slots, &self.demands, now, &mut self.shares);
        }
        self.due = self.turn_ends;
        let mut alive: usize = self.census.iter().map(|census| census.demand.workers + census.exiting).sum();
        self.allowances.clear();
        for (census, share) in self.census.iter().zip(&self.shares) {
            // A pool's exiting workers do not count against their replacements.
            let room = slots.saturating_sub(alive - census.exiting);
            // A draining agent starts no more workers.
            let missing = if draining { 0 } else { share.workers.saturating_sub(census.demand.workers) };
            let starts = missing.min(room);
            alive += starts;
            if starts < missing {
                self.due = [self.due, next_free_slot(&self.census)].into_iter().flatten().min();
            }
            let &Share { running, workers, turn } = share;
            self.allowances.push(Allowance { running, workers, starts, turn: Some(turn) });
        }
        &self.allowances
    }

    /// Records why nothing can run here, if nothing can. Returns the change to report.
    ///
    /// If one pool's workers die while another pool can serve, only the first pool is reported unhealthy: the other one
    /// keeps running.
    pub(crate) fn record_health(&mut self, reason: Option<&str>, now: u64) -> Option<HealthReport> {
        let unhealthy = reason.is_some();
        if unhealthy == self.unhealthy {
            return None;
        }
        if let Some(at) = self.recovered_at.map(|at| at + REPORT_AGAIN_AFTER_NS).filter(|&at| unhealthy && now < at) {
            self.wake_at(Some(at));
            return None;
        }
        self.unhealthy = unhealthy;
        self.recovered_at = Some(now).filter(|_| !unhealthy);
        Some(HealthReport { reason: reason.unwrap_or_default().to_owned(), pool: 0 })
    }

    /// Makes sure that the next round is no later than this.
    pub(crate) fn wake_at(&mut self, due: Option<u64>) {
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Returns how many chunks the agent wants to hold, if that has changed since the last report.
    pub(crate) fn credit(&mut self, pools: &[WorkerPool], slots: usize) -> Option<u32> {
        // Idle pools do not show how much should be sent in advance.
        let any = pools.iter().any(WorkerPool::has_chunks);
        if any || std::mem::take(&mut self.pools_changed) {
            let of = pools.iter().filter(|pool| !any || pool.has_chunks());
            let (processes, ahead) = of.fold((0, 0), |(processes, ahead), pool| {
                (processes + pool.processes(), ahead + pool.processes() * (pool.chunks_a_worker() - 1))
            });
            // Pools that share slots share the chunks sent in advance.
            self.ahead = if processes > slots { ahead * slots / processes } else { ahead };
        }
        let lent: usize = pools.iter().map(WorkerPool::lent).sum();
        // Chunks that a waiting task needs must find room, even if chunks that cannot run fill the credit.
        let blocked =
            if lent == 0 { 0 } else { pools.iter().map(WorkerPool::blocked_chunks).sum::<usize>().min(MAX_BLOCKED) };
        let chunks = if self.unhealthy { 0 } else { slots + self.ahead + lent + blocked };
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        (self.credit.replace(chunks) != Some(chunks)).then_some(chunks)
    }
}

/// Returns when the first slot of an exiting worker becomes free.
fn next_free_slot(census: &[Census]) -> Option<u64> {
    census.iter().filter_map(|census| census.slot_held_until).min()
}
