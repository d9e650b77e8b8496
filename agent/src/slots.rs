//! How the slots of a host are shared between its pools: arithmetic only, no process and no clock.
//!
//! Pools that have something to do get slots by their weights, none more than it can use. What is left keeps warm workers
//! where they are, and starts some where there are none. Nobody loses a worker unless another has work that waits for
//! one. Where more pools have work than there are slots, they take turns.

use std::cmp::Reverse;

/// How long a pool keeps its slot while another waits for its turn: long against what it costs to start a worker.
pub(crate) const QUANTUM_NS: u64 = 50_000_000;

/// What a pool could use, and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Its share against others; at least 1.
    pub(crate) weight: u32,
    /// Workers that it could keep busy now.
    pub(crate) wish: usize,
    /// Workers that it may have.
    pub(crate) most: usize,
    /// Workers that it has.
    pub(crate) workers: usize,
    /// Some of them run.
    pub(crate) runs: bool,
    /// When it last had something to do; of interest while it has not.
    pub(crate) used_at: u64,
    pub(crate) turn: Turn,
}

/// Whether a pool has slots for what it wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has none since then; 0: it has had none yet.
    Over { at: u64 },
    /// It has, and runs since then; none: its workers are only being started.
    Has { since: Option<u64> },
}

/// What a pool gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Workers that may run items.
    pub(crate) running: usize,
    /// Workers that it should have. More of them leave once they are idle; fewer are started.
    pub(crate) workers: usize,
    pub(crate) turn: Turn,
}

/// Shares out `slots`, one share for each claim. Returns when a turn ends, if one does.
pub(crate) fn share(slots: usize, claims: &[Claim], now: u64, shares: &mut Vec<Share>) -> Option<u64> {
    shares.clear();
    shares.extend(claims.iter().map(|claim| Share { running: 0, workers: claim.workers, turn: begun(claim, now) }));
    let until = take_turns(slots, claims, now, shares);
    let mut left = give_by_weight(slots, claims, shares);
    // Deficits count only those that have work: nobody gives way to a worker that would be idle.
    let missing: usize =
        claims.iter().zip(&*shares).map(|(claim, share)| share.running.saturating_sub(claim.workers)).sum();
    left = keep_warm(left, claims, shares);
    start_the_rest(left, claims, shares);
    let workers: usize = claims.iter().map(|claim| claim.workers).sum();
    let give_way = if missing == 0 { 0 } else { (missing + workers).saturating_sub(slots) };
    set_workers(give_way, claims, shares);
    until
}

fn begun(claim: &Claim, now: u64) -> Turn {
    match claim.turn {
        Turn::Has { .. } if wanted(claim) == 0 => Turn::Over { at: now },
        Turn::Has { since: None } if claim.runs => Turn::Has { since: Some(now) },
        turn => turn,
    }
}

fn wanted(claim: &Claim) -> usize {
    claim.wish.min(claim.most)
}

/// Decides who gets slots at all.
fn take_turns(slots: usize, claims: &[Claim], now: u64, shares: &mut [Share]) -> Option<u64> {
    let mut waiting: Vec<usize> = (0..claims.len()).filter(|&at| wanted(&claims[at]) > 0).collect();
    let crowded = waiting.len() > slots;
    if crowded {
        // First those whose turn is not over, then those that have waited longest.
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

/// One slot for everybody whose turn it is, and the others by weight; returns how many are left.
fn give_by_weight(slots: usize, claims: &[Claim], shares: &mut [Share]) -> usize {
    let mut left = slots;
    let served = |share: &Share| matches!(share.turn, Turn::Has { .. });
    for share in shares.iter_mut().filter(|share| served(share)).take(slots) {
        share.running = 1;
        left -= 1;
    }
    while left > 0 {
        let poorest = (0..claims.len())
            .filter(|&at| served(&shares[at]) && shares[at].running < wanted(&claims[at]))
            .min_by(|&one, &other| {
                // running / weight, without dividing.
                let scaled = |of: usize, by: usize| shares[of].running as u64 * u64::from(claims[by].weight);
                scaled(one, other).cmp(&scaled(other, one))
            });
        let Some(at) = poorest else { break };
        shares[at].running += 1;
        left -= 1;
    }
    left
}

/// Workers that are there and could find something to do stay, those that were used last first.
fn keep_warm(mut left: usize, claims: &[Claim], shares: &mut [Share]) -> usize {
    let mut warm: Vec<usize> = (0..claims.len()).collect();
    warm.sort_by_key(|&at| Reverse((wanted(&claims[at]) > 0, claims[at].used_at)));
    for at in warm {
        let more = claims[at].workers.min(claims[at].most).saturating_sub(shares[at].running).min(left);
        shares[at].running += more;
        left -= more;
    }
    left
}

/// Workers that are likely to be wanted soon: first one for everybody.
fn start_the_rest(mut left: usize, claims: &[Claim], shares: &mut [Share]) {
    while left > 0 {
        let may_have_more = |&at: &usize| shares[at].running < claims[at].most;
        let Some(at) = (0..claims.len()).filter(may_have_more).min_by_key(|&at| shares[at].running) else { return };
        shares[at].running += 1;
        left -= 1;
    }
}

/// Those that have less get more. Of those that have more, `give_way` workers leave: of pools that have nothing to do, the
/// one that was used longest ago first.
fn set_workers(mut give_way: usize, claims: &[Claim], shares: &mut [Share]) {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|&at| (wanted(&claims[at]) > 0, claims[at].used_at));
    for at in order {
        let (claim, share) = (&claims[at], &mut shares[at]);
        let too_many = claim.workers.saturating_sub(share.running);
        let leave = too_many.min(give_way);
        give_way -= leave;
        share.workers = if too_many > 0 { (claim.workers - leave).min(claim.most) } else { share.running };
    }
}

#[cfg(test)]
mod tests;
