use proptest::prelude::*;

use super::*;

const MILLISECOND: u64 = 1_000_000;
const NEW: Turn = Turn::Over { at: 0 };

/// usable, most, workers.
fn demand((usable, most, workers): (usize, usize, usize)) -> Demand {
    Demand { weight: 1, usable, most, workers, runs: usable > 0 && workers > 0, used_at: 0, turn: NEW }
}

fn shared(slots: usize, demands: &[Demand], now: u64) -> Vec<Share> {
    let mut shares = Vec::new();
    share(slots, demands, now, &mut shares);
    shares
}

/// Checks how many workers each pool may run and should have.
fn check(slots: usize, demands: &[Demand], expected: &[(usize, usize)]) {
    let shares = shared(slots, demands, 0);
    let found: Vec<_> = shares.iter().map(|share| (share.running, share.workers)).collect();
    assert_eq!(found, expected, "{slots} slots for {demands:?}");
}

fn check_plain(slots: usize, demands: &[(usize, usize, usize)], expected: &[(usize, usize)]) {
    check(slots, &demands.iter().copied().map(demand).collect::<Vec<_>>(), expected);
}

#[test]
fn a_single_pool_gets_all_that_it_may_have() {
    check_plain(4, &[(0, 4, 0)], &[(4, 4)]);
    check_plain(4, &[(0, 4, 4)], &[(4, 4)]);
    check_plain(4, &[(9, 4, 4)], &[(4, 4)]);
    check_plain(4, &[(1, 2, 0)], &[(2, 2)]);
    // The pool was resized to fewer workers.
    check_plain(4, &[(4, 2, 4)], &[(2, 2)]);
}

#[test]
fn pools_with_work_share_equally() {
    check_plain(4, &[(9, 4, 4), (9, 4, 0)], &[(2, 2), (2, 2)]);
    check_plain(4, &[(9, 4, 4), (1, 4, 0)], &[(3, 3), (1, 1)]);
    check_plain(5, &[(9, 5, 0), (9, 5, 0)], &[(3, 3), (2, 2)]);
}

#[test]
fn weights_count() {
    let weighted = |weight, demand| Demand { weight, ..demand };
    let (heavy, light) = (weighted(3, demand((9, 8, 8))), demand((9, 8, 0)));
    check(8, &[heavy, light], &[(6, 6), (2, 2)]);
    check(4, &[heavy, light], &[(3, 3), (1, 1)]);
    // Every pool gets a slot, however heavy the others are.
    check(2, &[weighted(1000, heavy), light], &[(1, 1), (1, 1)]);
    // The other pool gets what the heavy one cannot use.
    check(8, &[Demand { usable: 1, ..heavy }, light], &[(1, 1), (7, 7)]);
}

#[test]
fn warm_workers_stay_until_another_pool_needs_the_slot() {
    // No pool has work: none loses workers, and none gets slots that are not free.
    check_plain(4, &[(0, 4, 4), (0, 4, 0)], &[(4, 4), (0, 0)]);
    check_plain(6, &[(0, 4, 4), (0, 4, 0)], &[(4, 4), (2, 2)]);
    // One slot is needed, and one worker exits.
    check_plain(4, &[(0, 4, 4), (1, 4, 0)], &[(3, 3), (1, 1)]);
    // The pool that was used longest ago loses its worker first.
    let used = |used_at, demand| Demand { used_at, ..demand };
    let demands = [used(9, demand((0, 4, 2))), used(5, demand((0, 4, 2))), demand((2, 4, 0))];
    check(4, &demands, &[(2, 2), (0, 0), (2, 2)]);
    // More workers than slots, since one has stopped waiting: that alone makes none exit.
    check_plain(1, &[(1, 1, 1), (0, 1, 1)], &[(1, 1), (0, 1)]);
}

#[test]
fn the_longest_waiting_pool_is_next_and_turns_end() {
    let mut demands = [demand((9, 1, 1)), demand((9, 1, 0)), demand((9, 1, 0))];
    let (mut served, mut now) = (Vec::new(), 0);
    while now < 300 * MILLISECOND {
        let mut shares = Vec::new();
        let until = share(1, &demands, now, &mut shares);
        let running: Vec<_> = (0..3).filter(|&at| shares[at].running > 0).collect();
        assert_eq!(running.len(), 1);
        served.push(running[0]);
        for (demand, share) in demands.iter_mut().zip(&shares) {
            (demand.turn, demand.workers, demand.runs) = (share.turn, share.running, share.running > 0);
        }
        now = until.unwrap_or(now + MILLISECOND);
    }
    served.dedup();
    assert_eq!(served, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_turn_does_not_pass_while_the_worker_is_started() {
    let starting = Demand { turn: Turn::Has { since: None }, runs: false, ..demand((1, 1, 0)) };
    let waiting = Demand { turn: Turn::Over { at: 1 }, ..demand((1, 1, 0)) };
    let shares = shared(1, &[starting, waiting], 1000 * QUANTUM_NS);
    assert_eq!([shares[0].running, shares[1].running], [1, 0]);
}

fn demands() -> impl Strategy<Value = Vec<Demand>> {
    let turn = prop_oneof![
        (0..200 * MILLISECOND).prop_map(|at| Turn::Over { at }),
        prop::option::of(0..200 * MILLISECOND).prop_map(|since| Turn::Has { since }),
    ];
    let demand = (1..5_u32, 0..9_usize, 0..9_usize, 0..9_usize, any::<bool>(), 0..9_u64, turn).prop_map(
        |(weight, usable, most, workers, runs, used_at, turn)| Demand {
            weight,
            usable,
            most,
            workers,
            runs,
            used_at,
            turn,
        },
    );
    prop::collection::vec(demand, 0..9)
}

proptest! {
    #[test]
    fn shares_are_sound(slots in 1..12_usize, demands in demands(), now in 0..300 * MILLISECOND) {
        let shares = shared(slots, &demands, now);
        let both = || demands.iter().zip(&shares);
        let running: usize = shares.iter().map(|share| share.running).sum();
        prop_assert!(running <= slots);
        // No slot that a pool could use is left free.
        let most: usize = demands.iter().map(|demand| demand.most).sum();
        prop_assert_eq!(running, slots.min(most));
        for (demand, share) in both() {
            prop_assert!(share.running <= demand.most && share.workers <= demand.most);
            prop_assert!(share.workers >= share.running);
        }
        // Work has precedence over warm workers.
        let useful: usize = both().map(|(demand, share)| share.running.min(wanted(demand))).sum();
        let wishes: usize = demands.iter().map(wanted).sum();
        prop_assert_eq!(useful, slots.min(wishes));
        // No pool loses a worker unless another pool's work waits for one, and no more than are needed.
        let lost: usize = both().map(|(demand, share)| demand.workers.min(demand.most).saturating_sub(share.workers)).sum();
        let missing: usize =
            both().map(|(demand, share)| share.running.min(wanted(demand)).saturating_sub(demand.workers)).sum();
        let workers: usize = demands.iter().map(|demand| demand.workers).sum();
        prop_assert!(lost == 0 || missing > 0);
        prop_assert!(lost <= (missing + workers).saturating_sub(slots));
        // Enough of them exit.
        let after: usize = both().map(|(demand, share)| share.workers.min(demand.workers)).sum();
        prop_assert!(missing == 0 || after + missing <= slots);
    }

    #[test]
    fn no_pool_gets_more_than_its_weight(slots in 1..30_usize, demands in demands(), now in 0..300 * MILLISECOND) {
        let with_work = demands.iter().filter(|demand| wanted(demand) > 0).count();
        prop_assume!(with_work <= slots);
        let shares = shared(slots, &demands, now);
        for (demand, share) in demands.iter().zip(&shares).filter(|(demand, _)| wanted(demand) > 0) {
            prop_assert!(share.running > 0);
            for (other, others) in demands.iter().zip(&shares).filter(|(other, _)| wanted(other) > 0) {
                // A pool with less than it wants has as much for its weight as any other, give or take one worker.
                let unsatisfied = share.running < wanted(demand);
                let given = others.running.min(wanted(other)) as u64;
                let fair = given <= 1 || (given - 1) * u64::from(demand.weight) <= share.running as u64 * u64::from(other.weight);
                prop_assert!(!unsatisfied || fair);
            }
        }
    }

    /// Every pool that keeps waiting soon gets its turn, whatever the other pools want meanwhile.
    #[test]
    fn every_pool_gets_a_turn(slots in 1..4_usize, count in 1..9_usize, steps in 100..200_u64) {
        let mut demands = vec![demand((3, 3, 0)); count];
        let (mut served, mut now) = (vec![0_u64; count], 0);
        for _ in 0..steps {
            for (at, share) in shared(slots, &demands, now).into_iter().enumerate() {
                served[at] += share.running as u64;
                (demands[at].turn, demands[at].workers, demands[at].runs) = (share.turn, share.running, share.running > 0);
            }
            now += 10 * MILLISECOND;
        }
        let (least, most) = (served.iter().min(), served.iter().max());
        prop_assert!(2 * least.unwrap_or(&0) + 40 >= *most.unwrap_or(&0), "{served:?}");
    }
}
