//! Slots and credit of a whole agent: counts what its pools have, and tells them what they may.

use farpool_proto::v1::agent_event::Body;
use farpool_proto::v1::{AgentEvent, Ailing};

use crate::pool::{Allowance, Census, WorkerPool};
use crate::slots::{self, Claim, Share};

/// Chunks, of all pools, beyond which it is not made up for that they wait behind workers that wait themselves.
const MOST_STUCK: usize = 1024;

/// What the agent keeps from one round to the next.
#[derive(Debug, Default)]
pub(crate) struct Sharing {
    claims: Vec<Claim>,
    shares: Vec<Share>,
    census: Vec<Census>,
    /// When a turn ends.
    turn_ends: Option<u64>,
    /// When something is due that no descriptor will tell.
    pub(crate) due: Option<u64>,
    /// Chunks given ahead that the credit counts, as of the last time that any pool had something.
    ahead: usize,
    /// The pools that this was found for have come or gone or changed.
    pub(crate) pools_changed: bool,
    /// The credit that the coordinator was told last.
    credit: Option<u32>,
    /// The coordinator was last told that no pool can serve, because workers die when they are started.
    ailing: bool,
    /// When it was last told that some pool can serve again.
    recovered_at: Option<u64>,
}

/// How long after a reported recovery trouble may be reported again, in ns: some workers serve and die in turn.
pub(crate) const AILS_AFTER_NS: u64 = 1_000_000_000;

impl Sharing {
    /// Whether nothing could run here.
    pub(crate) fn ails(&self) -> bool {
        self.ailing
    }

    /// Decides how many workers each pool may have and run.
    pub(crate) fn share(&mut self, pools: &mut [WorkerPool], slots: usize, draining: bool, now: u64) {
        self.due = None;
        if let [pool] = pools
            && pool.lent() == 0
        {
            let allowance = Allowance::alone(pool.processes());
            return pool.allow(if draining { allowance.without_starts() } else { allowance }, now);
        }
        self.census.clear();
        self.census.extend(pools.iter_mut().map(|pool| pool.census(now)));
        let unchanged = self.claims.iter().eq(self.census.iter().map(|census| &census.claim));
        if !unchanged || self.turn_ends.is_some_and(|end| now >= end) {
            self.claims.clear();
            self.claims.extend(self.census.iter().map(|census| census.claim));
            self.turn_ends = slots::share(slots, &self.claims, now, &mut self.shares);
        }
        self.due = self.turn_ends;
        let mut alive: usize = self.census.iter().map(|census| census.claim.workers + census.going).sum();
        for ((pool, census), share) in pools.iter_mut().zip(&self.census).zip(&self.shares) {
            // Those of its own that are going have made room for their successors already.
            let room = slots.saturating_sub(alive - census.going);
            // An agent that is leaving starts nothing more.
            let missing = if draining { 0 } else { share.workers.saturating_sub(census.claim.workers) };
            let starts = missing.min(room);
            alive += starts;
            if starts < missing {
                self.due = [self.due, census_of_going(&self.census)].into_iter().flatten().min();
            }
            pool.allow(
                Allowance { running: share.running, workers: share.workers, starts, turn: Some(share.turn) },
                now,
            );
        }
    }

    /// Reports changes of whether anything can run here. If a pool's workers die while another pool can serve, only the first pool is
    /// reported, so that the other one keeps running.
    pub(crate) fn tell_health(&mut self, pools: &mut [WorkerPool], now: u64, events: &mut Vec<AgentEvent>) {
        let reason = pools.iter().find_map(WorkerPool::ailing);
        let reason = reason.filter(|_| !pools.iter().any(WorkerPool::can_serve));
        let ails = reason.is_some();
        let mut due = None;
        if ails != self.ailing {
            match self.recovered_at.map(|at| at + AILS_AFTER_NS).filter(|&at| ails && now < at) {
                Some(at) => due = Some(at),
                None => {
                    self.ailing = ails;
                    self.recovered_at = Some(now).filter(|_| !ails);
                    let reason = reason.unwrap_or_default().to_owned();
                    events.push(AgentEvent { body: Some(Body::Ailing(Ailing { reason, pool: 0 })) });
                }
            }
        }
        for pool in pools {
            let told = pool.tell_health(self.ailing, now);
            events.extend(told.map(|body| AgentEvent { body: Some(body) }));
            due = [due, pool.health_due(now)].into_iter().flatten().min();
        }
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// How many chunks the agent wants to hold, if that is not what the coordinator was told last.
    pub(crate) fn credit(&mut self, pools: &[WorkerPool], slots: usize) -> Option<u32> {
        // Pools that have nothing to do say nothing about how much is to be given ahead.
        let any = pools.iter().any(WorkerPool::has_chunks);
        if any || std::mem::take(&mut self.pools_changed) {
            let of = pools.iter().filter(|pool| !any || pool.has_chunks());
            let (processes, ahead) = of.fold((0, 0), |(processes, ahead), pool| {
                (processes + pool.processes(), ahead + pool.processes() * (pool.chunks_a_worker() - 1))
            });
            // Pools that share slots share what is given ahead.
            self.ahead = if processes > slots { ahead * slots / processes } else { ahead };
        }
        let lent: usize = pools.iter().map(WorkerPool::lent).sum();
        // The chunks that somebody waits for must find room, even where others that cannot run take it up.
        let stuck = if lent == 0 { 0 } else { pools.iter().map(WorkerPool::stuck).sum::<usize>().min(MOST_STUCK) };
        let chunks = if self.ailing { 0 } else { slots + self.ahead + lent + stuck };
        let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
        (self.credit.replace(chunks) != Some(chunks)).then_some(chunks)
    }
}

/// Lets the pools look after their workers and give them more.
pub(crate) fn run_pools(pools: &mut [WorkerPool], slots: usize, now: u64) {
    let alone = pools.len() == 1;
    let mut running: usize = if alone { 0 } else { pools.iter().map(WorkerPool::running).sum() };
    for pool in pools {
        let before = if alone { 0 } else { pool.running() };
        pool.work(slots.saturating_sub(running - before), now);
        if !alone {
            running = running - before + pool.running();
        }
    }
}

/// When the first of those that are going is not waited for any longer.
fn census_of_going(census: &[Census]) -> Option<u64> {
    census.iter().filter_map(|census| census.gone_by).min()
}
