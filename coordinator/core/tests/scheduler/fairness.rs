//! Jobs share slot time, however long their items take and whenever they start.

use std::num::NonZeroU64;

use farpool_core::{Action, Config, JobPolicy};

use crate::sim::Sim;
use crate::world::World;

const MS: u64 = 1_000_000;

/// Jobs with more items than they get done: pool, time per item, and start. Over the last `window`, each must have had
/// its share of four slots, in per cent.
#[track_caller]
fn check(weights: &[u32], jobs: &[(u32, u64, u64)], window: u64, shares: &[u64]) {
    let mut sim = Sim::new(&[(4, 4)], weights);
    let mut end = 0;
    for &(pool, item_ns, comes) in jobs {
        sim.run_until(comes);
        sim.map(pool, 1, 1_000_000, move |_| item_ns);
        end = comes;
    }
    sim.run_until(end);
    let before = sim.served.clone();
    sim.run_until(end + window);
    let had: Vec<u64> = sim.served.iter().map(|(job, served)| served - before.get(job).unwrap_or(&0)).collect();
    let all: u64 = had.iter().sum();
    for (job, (&had, &share)) in had.iter().zip(shares).enumerate() {
        let found = had * 100 / all;
        assert!(found.abs_diff(share) <= 5, "job {job} had {found} % and not {share} %");
    }
}

#[test]
fn equal_jobs_share_equally() {
    check(&[1], &[(0, MS, 0), (0, MS, 0)], 200 * MS, &[50, 50]);
    check(&[1], &[(0, MS, 0), (0, MS, 0), (0, MS, 0), (0, MS, 0)], 400 * MS, &[25, 25, 25, 25]);
}

#[test]
fn long_items_give_no_advantage() {
    check(&[1], &[(0, 10 * MS, 0), (0, MS, 0)], 1000 * MS, &[50, 50]);
    check(&[1], &[(0, 10 * MS, 0), (0, MS / 10, 0)], 1000 * MS, &[50, 50]);
}

#[test]
fn a_late_job_neither_waits_nor_catches_up() {
    check(&[1], &[(0, MS, 0), (0, MS, 500 * MS)], 100 * MS, &[50, 50]);
    check(&[1], &[(0, MS, 0), (0, MS, 500 * MS), (0, MS, 500 * MS)], 150 * MS, &[33, 33, 33]);
    check(&[1, 1], &[(0, MS, 0), (1, MS, 500 * MS)], 100 * MS, &[50, 50]);
    check(&[1, 3], &[(0, MS, 0), (1, MS, 500 * MS)], 100 * MS, &[25, 75]);
}

#[test]
fn pools_share_by_weight_and_split_among_their_jobs() {
    check(&[3, 1], &[(0, MS, 0), (1, MS, 0)], 400 * MS, &[75, 25]);
    check(&[1, 1], &[(0, MS, 0), (1, MS, 0), (1, MS, 0), (1, MS, 0)], 600 * MS, &[50, 16, 16, 16]);
}

/// A short job that starts while a long one is busy ends about as fast as with two equal users.
#[test]
fn a_long_job_does_not_starve_a_short_one() {
    let mut sim = Sim::new(&[(4, 4)], &[1]);
    sim.map(0, 0, 1_000_000, |_| MS / 10);
    sim.run_until(300 * MS);
    // 10 ms of work for four slots, of which it gets half.
    let short = sim.map(0, 0, 400, |_| MS / 10);
    sim.run_until(330 * MS);
    assert_eq!(sim.finished, [short]);
}

fn one_by_one() -> JobPolicy {
    JobPolicy { chunksize: NonZeroU64::new(1), ..JobPolicy::default() }
}

/// Returns the job whose chunk is handed out next. The agent holds one at a time and has finished the last.
fn next(world: &mut World) -> u32 {
    world.schedule();
    world.agents[&0].chunks[0].job
}

fn two_jobs() -> (World, u32, u32) {
    let mut world = World::new(Config::default());
    world.join(1, 1);
    let (a, b) = (world.map(one_by_one(), 50), world.map(one_by_one(), 50));
    (world, a, b)
}

#[test]
fn a_first_chunk_that_took_longer_than_expected_is_charged_in_full() {
    let (mut world, slow, _) = two_jobs();
    let mut picked = Vec::new();
    for _ in 0..30 {
        let job = next(&mut world);
        picked.push(job);
        world.run_all(0, 0, if job == slow { 20 * MS } else { MS });
    }
    assert_eq!(picked.iter().filter(|&&job| job == slow).count(), 2, "{picked:?}");
}

#[test]
fn a_first_chunk_that_took_less_than_expected_is_refunded() {
    let (mut world, quick, _) = two_jobs();
    let mut picked = Vec::new();
    for _ in 0..20 {
        let job = next(&mut world);
        picked.push(job);
        world.run_all(0, 0, if job == quick { MS / 100 } else { MS });
    }
    assert_eq!(picked.iter().filter(|&&job| job == quick).count(), 19, "{picked:?}");
}

#[test]
fn returned_items_are_not_charged() {
    let (mut world, unlucky, _) = two_jobs();
    let mut picked = Vec::new();
    for _ in 0..20 {
        let job = next(&mut world);
        picked.push(job);
        if job == unlucky {
            let item = world.agents[&0].chunks[0].first;
            world.give_back(0, 0, item, 1);
        } else {
            world.run_all(0, 0, MS);
        }
    }
    assert!(picked.iter().filter(|&&job| job == unlucky).count() > 15, "{picked:?}");
    let assigned = world.log.iter().filter(|action| matches!(action, Action::Assign { .. })).count();
    assert_eq!(assigned, 20);
}

/// Otherwise calls would overtake others that were made long before them.
#[test]
fn jobs_that_used_equally_much_run_in_the_order_in_which_they_were_opened() {
    let mut world = World::new(Config::default());
    world.join(1, 1);
    let mut opened: Vec<u32> = (0..40).map(|_| world.map(one_by_one(), 1)).collect();
    let mut picked = Vec::new();
    for _ in 0..39 {
        for _ in 0..2 {
            picked.push(next(&mut world));
            world.run_all(0, 0, MS);
        }
        opened.push(world.map(one_by_one(), 1));
    }
    assert_eq!(picked, opened[..picked.len()]);
}
