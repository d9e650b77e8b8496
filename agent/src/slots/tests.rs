use proptest::prelude::*;

use super::*;

const MILLISECOND: u64 = 1_000_000;
const NEW: Turn = Turn::Over { at: 0 };

/// wish, most, workers.
fn claim((wish, most, workers): (usize, usize, usize)) -> Claim {
    Claim { weight: 1, wish, most, workers, runs: wish > 0 && workers > 0, used_at: 0, turn: NEW }
}

fn shared(slots: usize, claims: &[Claim], now: u64) -> Vec<Share> {
    let mut shares = Vec::new();
    share(slots, claims, now, &mut shares);
    shares
}

/// Who may run how many, and should have how many.
fn check(slots: usize, claims: &[Claim], expected: &[(usize, usize)]) {
    let shares = shared(slots, claims, 0);
    let found: Vec<_> = shares.iter().map(|share| (share.running, share.workers)).collect();
    assert_eq!(found, expected, "{slots} slots for {claims:?}");
}

fn check_plain(slots: usize, claims: &[(usize, usize, usize)], expected: &[(usize, usize)]) {
    check(slots, &claims.iter().copied().map(claim).collect::<Vec<_>>(), expected);
}

#[test]
fn a_pool_alone_has_all_that_it_may() {
    check_plain(4, &[(0, 4, 0)], &[(4, 4)]);
    check_plain(4, &[(0, 4, 4)], &[(4, 4)]);
    check_plain(4, &[(9, 4, 4)], &[(4, 4)]);
    check_plain(4, &[(1, 2, 0)], &[(2, 2)]);
    // It has become smaller.
    check_plain(4, &[(4, 2, 4)], &[(2, 2)]);
}

#[test]
fn pools_with_work_share_alike() {
    check_plain(4, &[(9, 4, 4), (9, 4, 0)], &[(2, 2), (2, 2)]);
    check_plain(4, &[(9, 4, 4), (1, 4, 0)], &[(3, 3), (1, 1)]);
    check_plain(5, &[(9, 5, 0), (9, 5, 0)], &[(3, 3), (2, 2)]);
}

#[test]
fn weights_count() {
    let weighted = |weight, claim| Claim { weight, ..claim };
    let (heavy, light) = (weighted(3, claim((9, 8, 8))), claim((9, 8, 0)));
    check(8, &[heavy, light], &[(6, 6), (2, 2)]);
    check(4, &[heavy, light], &[(3, 3), (1, 1)]);
    // However heavy the others are, everybody gets a slot.
    check(2, &[weighted(1000, heavy), light], &[(1, 1), (1, 1)]);
    // What the heavy one cannot use is the other's.
    check(8, &[Claim { wish: 1, ..heavy }, light], &[(1, 1), (7, 7)]);
}

#[test]
fn warm_workers_stay_until_somebody_needs_the_slot() {
    // Nobody has work: nobody loses anything, and nobody gets what is not free.
    check_plain(4, &[(0, 4, 4), (0, 4, 0)], &[(4, 4), (0, 0)]);
    check_plain(6, &[(0, 4, 4), (0, 4, 0)], &[(4, 4), (2, 2)]);
    // One slot is needed, and one worker goes.
    check_plain(4, &[(0, 4, 4), (1, 4, 0)], &[(3, 3), (1, 1)]);
    // The pool that was used longest ago gives way first.
    let used = |used_at, claim| Claim { used_at, ..claim };
    let claims = [used(9, claim((0, 4, 2))), used(5, claim((0, 4, 2))), claim((2, 4, 0))];
    check(4, &claims, &[(2, 2), (0, 0), (2, 2)]);
    // More workers than slots, since one has stopped waiting: that alone ends none.
    check_plain(1, &[(1, 1, 1), (0, 1, 1)], &[(1, 1), (0, 1)]);
}

#[test]
fn the_longest_waiting_pool_is_next_and_nobody_keeps_its_turn() {
    let mut claims = [claim((9, 1, 1)), claim((9, 1, 0)), claim((9, 1, 0))];
    let (mut served, mut now) = (Vec::new(), 0);
    while now < 300 * MILLISECOND {
        let mut shares = Vec::new();
        let until = share(1, &claims, now, &mut shares);
        let running: Vec<_> = (0..3).filter(|&at| shares[at].running > 0).collect();
        assert_eq!(running.len(), 1);
        served.push(running[0]);
        for (claim, share) in claims.iter_mut().zip(&shares) {
            (claim.turn, claim.workers, claim.runs) = (share.turn, share.running, share.running > 0);
        }
        now = until.unwrap_or(now + MILLISECOND);
    }
    served.dedup();
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_turn_does_not_pass_while_the_worker_is_started() {
    let starting = Claim { turn: Turn::Has { since: None }, runs: false, ..claim((1, 1, 0)) };
    let waiting = Claim { turn: Turn::Over { at: 1 }, ..claim((1, 1, 0)) };
    let shares = shared(1, &[starting, waiting], 1000 * QUANTUM_NS);
    assert_eq!([shares[0].running, shares[1].running], [1, 0]);
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let turn = prop_oneof![
        (0..200 * MILLISECOND).prop_map(|at| Turn::Over { at }),
        prop::option::of(0..200 * MILLISECOND).prop_map(|since| Turn::Has { since }),
    ];
    let claim = (1..5_u32, 0..9_usize, 0..9_usize, 0..9_usize, any::<bool>(), 0..9_u64, turn).prop_map(
        |(weight, wish, most, workers, runs, used_at, turn)| Claim { weight, wish, most, workers, runs, used_at, turn },
    );
    prop::collection::vec(claim, 0..9)
}

proptest! {
    #[test]
    fn shares_are_sound(slots in 1..12_usize, claims in claims(), now in 0..300 * MILLISECOND) {
        let shares = shared(slots, &claims, now);
        let both = || claims.iter().zip(&shares);
        let running: usize = shares.iter().map(|share| share.running).sum();
        prop_assert!(running <= slots);
        // No slot is left where somebody could use it.
        let most: usize = claims.iter().map(|claim| claim.most).sum();
        prop_assert_eq!(running, slots.min(most));
        for (claim, share) in both() {
            prop_assert!(share.running <= claim.most && share.workers <= claim.most);
            prop_assert!(share.workers >= share.running);
        }
        // Work comes before what is kept warm.
        let useful: usize = both().map(|(claim, share)| share.running.min(wanted(claim))).sum();
        let wishes: usize = claims.iter().map(wanted).sum();
        prop_assert_eq!(useful, slots.min(wishes));
        // Nobody loses a worker unless another's work waits for one, and no more than are needed.
        let lost: usize = both().map(|(claim, share)| claim.workers.min(claim.most).saturating_sub(share.workers)).sum();
        let missing: usize =
            both().map(|(claim, share)| share.running.min(wanted(claim)).saturating_sub(claim.workers)).sum();
        let workers: usize = claims.iter().map(|claim| claim.workers).sum();
        prop_assert!(lost == 0 || missing > 0);
        prop_assert!(lost <= (missing + workers).saturating_sub(slots));
        // Enough of them leave.
        let after: usize = both().map(|(claim, share)| share.workers.min(claim.workers)).sum();
        prop_assert!(missing == 0 || after + missing <= slots);
    }

    #[test]
    fn nobody_is_served_better_than_by_weight(slots in 1..30_usize, claims in claims(), now in 0..300 * MILLISECOND) {
        let with_work = claims.iter().filter(|claim| wanted(claim) > 0).count();
        prop_assume!(with_work <= slots);
        let shares = shared(slots, &claims, now);
        for (claim, share) in claims.iter().zip(&shares).filter(|(claim, _)| wanted(claim) > 0) {
            prop_assert!(share.running > 0);
            for (other, others) in claims.iter().zip(&shares).filter(|(other, _)| wanted(other) > 0) {
                // Whoever has less than it wants has as much for its weight as any other but for one worker.
                let unsatisfied = share.running < wanted(claim);
                let given = others.running.min(wanted(other)) as u64;
                let fair = given <= 1 || (given - 1) * u64::from(claim.weight) <= share.running as u64 * u64::from(other.weight);
                prop_assert!(!unsatisfied || fair);
            }
        }
    }

    /// Whatever the pools want meanwhile, each that goes on waiting has its turn before long.
    #[test]
    fn everybody_has_a_turn(slots in 1..4_usize, count in 1..9_usize, steps in 100..200_u64) {
        let mut claims = vec![claim((3, 3, 0)); count];
        let (mut served, mut now) = (vec![0_u64; count], 0);
        for _ in 0..steps {
            for (at, share) in shared(slots, &claims, now).into_iter().enumerate() {
                served[at] += share.running as u64;
                (claims[at].turn, claims[at].workers, claims[at].runs) = (share.turn, share.running, share.running > 0);
            }
            now += 10 * MILLISECOND;
        }
        let (least, most) = (served.iter().min(), served.iter().max());
        prop_assert!(2 * least.unwrap_or(&0) + 40 >= *most.unwrap_or(&0), "{served:?}");
    }
}
