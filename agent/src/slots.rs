//! How a host's slots are shared between its pools: arithmetic only, without processes or a clock.
//!
//! Pools with work get slots by weight, none more than it can use. Slots beyond that keep idle workers alive, and start
//! workers in advance. A pool loses a worker only if another pool has work for the slot. If more pools have work than
//! there are slots, they take turns.

use std::cmp::Reverse;

/// How long a pool keeps its slot while another waits for its turn. Long compared with starting a worker.
pub(crate) const QUANTUM_NS: u64 = 50_000_000;

/// The demand of a pool for workers, and the workers that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Its weight relative to other pools; at least 1.
    pub(crate) weight: u32,
    /// Workers that have work now.
    pub(crate) usable: usize,
    /// Most workers that it may have.
    pub(crate) most: usize,
    /// Workers that it has.
    pub(crate) workers: usize,
    /// Whether any of them runs items.
    pub(crate) runs: bool,
    /// When it last had work; only used while it has none.
    pub(crate) used_at: u64,
    pub(crate) turn: Turn,
}

/// Whether it is a pool's turn to have slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has had no slots since `at`; 0: it has never had any.
    Over { at: u64 },
    /// It has slots and has run since then; `None`: its workers are still starting.
    Has { since: Option<u64> },
}

/// The slots that a pool gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Workers that may run items.
    pub(crate) running: usize,
    /// Workers that it should have. Surplus ones exit when idle; missing ones are started.
    pub(crate) workers: usize,
    pub(crate) turn: Turn,
}

/// Shares out `slots`, one share for each pool. Returns when the first turn ends, if pools take turns.
pub(crate) fn share(slots: usize, demands: &[Demand], now: u64, shares: &mut Vec<Share>) -> Option<u64> {
    shares.clear();
    shares.extend(demands.iter().map(|demand| Share { running: 0, workers: demand.workers, turn: begun(demand, now) }));
    let until = take_turns(slots, demands, now, shares);
    let mut left = give_by_weight(slots, demands, shares);
    // Only pools with work count as short of workers: no worker exits for one that would be idle.
    let missing: usize =
        demands.iter().zip(&*shares).map(|(demand, share)| share.running.saturating_sub(demand.workers)).sum();
    left = keep_warm(left, demands, shares);
    start_the_rest(left, demands, shares);
    let workers: usize = demands.iter().map(|demand| demand.workers).sum();
    let must_exit = if missing == 0 { 0 } else { (missing + workers).saturating_sub(slots) };
    set_workers(must_exit, demands, shares);
    until
}

fn begun(demand: &Demand, now: u64) -> Turn {
    match demand.turn {
        Turn::Has { .. } if wanted(demand) == 0 => Turn::Over { at: now },
        Turn::Has { since: None } if demand.runs => Turn::Has { since: Some(now) },
        turn => turn,
    }
}

fn wanted(demand: &Demand) -> usize {
    demand.usable.min(demand.most)
}

/// Decides which pools have their turn. Returns when the first turn ends.
fn take_turns(slots: usize, demands: &[Demand], now: u64, shares: &mut [Share]) -> Option<u64> {
    let mut waiting: Vec<usize> = (0..demands.len()).filter(|&at| wanted(&demands[at]) > 0).collect();
    let crowded = waiting.len() > slots;
    if crowded {
        // First pools whose turn is not over, then those that have waited longest.
        waiting.sort_by_key(|&at| match shares[at].turn {
            Turn::Has { since: None } => (0, 0),
            Turn::Has { since: Some(since) } if now < since + QUANTUM_NS => (0, since),
            Turn::Over { at } => (1, at),
            Turn::Has { since: Some(since) } => (2, since),
        });
    }
    let mut until = None;
    for (place, at) in waiting.into_iter().enumerate() {
        let turn = &mut shares[at].turn;
        *turn = match *turn {
            Turn::Has { since: Some(since) } if crowded && place < slots && now >= since + QUANTUM_NS => {
                Turn::Has { since: Some(now) }
            }
            Turn::Over { .. } if place < slots => Turn::Has { since: None },
            Turn::Has { .. } if place >= slots => Turn::Over { at: now },
            turn => turn,
        };
        if let Turn::Has { since: Some(since) } = *turn
            && crowded
        {
            until = [until, Some(since + QUANTUM_NS)].into_iter().flatten().min();
        }
    }
    until
}

/// Gives one slot to each pool whose turn it is, and the others by weight. Returns the number of free slots.
fn give_by_weight(slots: usize, demands: &[Demand], shares: &mut [Share]) -> usize {
    let mut left = slots;
    let served = |share: &Share| matches!(share.turn, Turn::Has { .. });
    for share in shares.iter_mut().filter(|share| served(share)).take(slots) {
        share.running = 1;
        left -= 1;
    }
    while left > 0 {
        let poorest = (0..demands.len())
            .filter(|&at| served(&shares[at]) && shares[at].running < wanted(&demands[at]))
            .min_by(|&one, &other| {
                // Compares running / weight without dividing.
                let scaled = |of: usize, by: usize| shares[of].running as u64 * u64::from(demands[by].weight);
                scaled(one, other).cmp(&scaled(other, one))
            });
        let Some(at) = poorest else { break };
        shares[at].running += 1;
        left -= 1;
    }
    left
}

/// Keeps existing workers, those of recently used pools first. Returns the number of free slots.
fn keep_warm(mut left: usize, demands: &[Demand], shares: &mut [Share]) -> usize {
    let mut warm: Vec<usize> = (0..demands.len()).collect();
    warm.sort_by_key(|&at| Reverse((wanted(&demands[at]) > 0, demands[at].used_at)));
    for at in warm {
        let more = demands[at].workers.min(demands[at].most).saturating_sub(shares[at].running).min(left);
        shares[at].running += more;
        left -= more;
    }
    left
}

/// Gives the free slots to pools that may need workers soon, one each first.
fn start_the_rest(mut left: usize, demands: &[Demand], shares: &mut [Share]) {
    while left > 0 {
        let may_have_more = |&at: &usize| shares[at].running < demands[at].most;
        let Some(at) = (0..demands.len()).filter(may_have_more).min_by_key(|&at| shares[at].running) else { return };
        shares[at].running += 1;
        left -= 1;
    }
}

/// Sets the number of workers of each pool. `must_exit` surplus workers exit: first those of the pool without work that
/// was used longest ago.
fn set_workers(mut must_exit: usize, demands: &[Demand], shares: &mut [Share]) {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|&at| (wanted(&demands[at]) > 0, demands[at].used_at));
    for at in order {
        let (demand, share) = (&demands[at], &mut shares[at]);
        let too_many = demand.workers.saturating_sub(share.running);
        let leave = too_many.min(must_exit);
        must_exit -= leave;
        share.workers = if too_many > 0 { (demand.workers - leave).min(demand.most) } else { share.running };
    }
}

#[cfg(test)]
mod tests;
