//! Which agent gets a chunk, which must give one back, and how large chunks are.

use std::num::NonZeroU64;

use farpool_core::{Action, Config, Event, Fault, Id, JobPolicy};

use crate::sim::Sim;
use crate::world::World;

const MS: u64 = 1_000_000;

fn one_by_one() -> JobPolicy {
    JobPolicy { chunksize: NonZeroU64::new(1), ..JobPolicy::default() }
}

/// Agents with slots and credit, and the number of chunks each gets of a job of `items`.
#[track_caller]
fn check_spread(agents: &[(u32, u32)], items: u64, expected: &[usize]) {
    let mut world = World::new(Config::default());
    for &(slots, credit) in agents {
        world.join(slots, credit);
    }
    world.map(one_by_one(), items);
    world.schedule();
    let held: Vec<usize> = world.agents.values().map(|agent| agent.chunks.len()).collect();
    assert_eq!(held, expected, "{agents:?}");
    world.drain();
}

#[test]
fn the_least_loaded_agent_gets_the_next_chunk() {
    check_spread(&[(1, 9), (3, 9)], 4, &[1, 3]);
    check_spread(&[(1, 9), (3, 9), (2, 9)], 12, &[2, 6, 4]);
    check_spread(&[(4, 4), (4, 4)], 4, &[2, 2]);
    // No credit, no chunk.
    check_spread(&[(4, 0), (4, 1), (1, 9)], 5, &[0, 1, 4]);
    // At equal load the agent with more credit is first.
    check_spread(&[(2, 2), (2, 6), (2, 4)], 1, &[0, 1, 0]);
    check_spread(&[(2, 6), (2, 5)], 9, &[5, 4]);
}

/// The first agent holds `held` chunks, of which it runs `slots`. Then others join with their slots and credit, and
/// `expected` chunks are asked back from the first.
#[track_caller]
fn check_taken_back(slots: u32, held: u32, others: &[(u32, u32)], expected: usize) {
    let mut world = World::new(Config::default());
    world.join(slots, held);
    world.map(one_by_one(), held.into());
    world.schedule();
    for &(slots, credit) in others {
        world.join(slots, credit);
    }
    for _ in 0..2 {
        // They are asked back only once.
        world.schedule();
        let asked: Vec<bool> = world.agents[&0].chunks.iter().map(|chunk| chunk.asked_back).collect();
        assert_eq!(asked.iter().filter(|&&asked| asked).count(), expected, "{slots} {held} {others:?}");
        // The newest, which are the last.
        assert!(asked.is_sorted());
    }
    world.drain();
}

#[test]
fn one_chunk_is_taken_back_for_each_idle_slot() {
    check_taken_back(2, 6, &[(1, 1)], 1);
    check_taken_back(2, 6, &[(2, 8)], 2);
    check_taken_back(2, 6, &[(2, 1)], 1);
    check_taken_back(2, 6, &[(1, 1), (1, 1), (1, 1)], 3);
    // No more than it can spare.
    check_taken_back(2, 6, &[(9, 9)], 4);
    check_taken_back(2, 2, &[(9, 9)], 0);
    check_taken_back(2, 6, &[(9, 0)], 0);
}

#[test]
fn kept_chunks_are_not_asked_for_again() {
    let mut world = World::new(Config::default());
    world.join(1, 3);
    world.map(one_by_one(), 3);
    world.schedule();
    world.join(1, 1);
    let asked = |world: &mut World| {
        let actions = world.schedule();
        actions.iter().filter(|action| matches!(action, Action::Retract { .. })).count()
    };
    assert_eq!(asked(&mut world), 1);
    let newest = world.agents[&0].chunks[2].first;
    world.give_back(0, 2, newest, 0);
    // The next newest is asked back now. When that is kept too, nothing else is.
    assert_eq!(asked(&mut world), 1);
    assert!(world.agents[&0].chunks[1].asked_back);
    let newest = world.agents[&0].chunks[1].first;
    world.give_back(0, 1, newest, 0);
    assert_eq!(asked(&mut world), 1);
    let newest = world.agents[&0].chunks[0].first;
    world.give_back(0, 0, newest, 0);
    assert_eq!(asked(&mut world), 0);
    world.drain();
}

#[test]
fn nothing_is_taken_back_while_anything_is_queued() {
    let mut world = World::new(Config::default());
    world.join(1, 3);
    world.map(one_by_one(), 9);
    world.schedule();
    world.join(1, 0);
    world.schedule();
    world.credit(1, 2);
    let actions = world.schedule();
    assert!(!actions.iter().any(|action| matches!(action, Action::Retract { .. })), "{actions:?}");
    world.drain();
}

/// A job of this many items of a known time, cut for agents with this many slots, and the expected chunk sizes.
#[track_caller]
fn check_sizes(agents: &[u32], pool_slots: u32, items: u64, item_ns: u64, expected: &[u64]) {
    let mut world = World::new(Config::default());
    let pool = world.open_pool(1, pool_slots, 1);
    // Learns item times from chunks that only one agent with one slot runs.
    world.join(1, 1);
    let job = world.open_in(pool, JobPolicy::default());
    world.arrive(job, 0, 5000);
    while world.jobs[&job].items.values().any(|item| item.outcome.is_none()) {
        world.schedule();
        world.run_all(0, 0, item_ns);
    }
    world.credit(0, 0);
    for &slots in agents {
        world.join(slots, 2);
    }
    world.arrive(job, 0, items);
    let sizes: Vec<u64> = world
        .schedule()
        .iter()
        .filter_map(|action| match action {
            Action::Assign { count, .. } => Some(*count),
            _ => None,
        })
        .collect();
    assert_eq!(sizes, expected);
    world.credit(0, 1);
    world.drain();
}

#[test]
fn adaptive_chunks_fill_the_target_and_share_the_rest() {
    // 1 ms of items of 10 us.
    check_sizes(&[3], 0, 5000, 10_000, &[100, 100]);
    // Half of a slot's share of the rest, where that is less. The first agent's slot counts too.
    check_sizes(&[3], 0, 80, 10_000, &[10, 9]);
    check_sizes(&[3, 4], 0, 80, 10_000, &[5, 5, 5, 5]);
    // A pool of two workers, of which the second agent got one.
    check_sizes(&[3, 4], 2, 80, 10_000, &[20]);
    // Longer than the target: one by one.
    check_sizes(&[3], 0, 80, 2_000_000, &[1, 1]);
}

/// Only some reports have times. Each time covers all items since the last report that had one.
#[test]
fn a_time_is_about_all_items_since_the_last() {
    let mut config = Config::default();
    config.chunk_target_ns = 10_000;
    let mut world = World::new(config);
    world.join(1, 1);
    let job = world.open(JobPolicy::default());
    world.arrive(job, 0, 1000);
    for size in [1, 2, 4, 8] {
        world.schedule();
        assert_eq!(world.agents[&0].chunks[0].left.len(), size);
        let first = world.agents[&0].chunks[0].first;
        if size < 8 {
            world.run_all(0, 0, 1000);
        } else {
            world.run(0, 0, first, 4, 0);
            world.run(0, 0, first + 4, 4, 8000);
        }
    }
    world.schedule();
    assert_eq!(world.agents[&0].chunks[0].left.len(), 10);
    world.drain();
}

/// 400 sleeps with heavy-tailed times, a known benchmark of schedulers: in random order or with the longest last.
#[test]
fn uneven_items_end_close_to_the_greedy_bound() {
    // A Pareto distribution with the exponent 1.5 and a minimum of 1 ms, in an order made by a multiplier.
    let drawn: Vec<u64> = (0..400u64)
        .map(|at| (at * 167 + 13) % 400)
        .map(|at| (MS as f64 * (400.0 / (at as f64 + 0.5)).powf(1.0 / 1.5)) as u64)
        .collect();
    let check = |times: Vec<u64>, chunksize: u64, agents: &[(u32, u32)], over: f64| {
        // Greedy: each item goes to the slot that is free first.
        let slots: u32 = agents.iter().map(|agent| agent.0).sum();
        let mut free = vec![0; slots as usize];
        for time in &times {
            *free.iter_mut().min().expect("there are slots") += time;
        }
        let greedy = *free.iter().max().expect("there are slots");
        let mut sim = Sim::new(agents, &[1]);
        let count = times.len() as u64;
        sim.map(0, chunksize, count, move |item| times[item as usize]);
        sim.run_until(u64::MAX);
        assert_eq!(sim.finished, [0]);
        let ratio = sim.now as f64 / greedy as f64;
        assert!(ratio <= over, "{ratio:.3} of the greedy bound with {agents:?}, {} taken back", sim.retractions);
    };
    let mut sorted = drawn.clone();
    sorted.sort_unstable();
    for agents in [&[(8, 8)][..], &[(8, 12)], &[(4, 4), (4, 4)], &[(4, 6), (4, 6)], &[(2, 4), (2, 4), (2, 4), (2, 4)]] {
        for chunksize in [0, 1] {
            check(drawn.clone(), chunksize, agents, 1.03);
            check(sorted.clone(), chunksize, agents, 1.03);
        }
    }
}

/// Some items take ten thousand times longer than those around them. Their chunk is much too big, and is split again
/// once the others are done.
#[test]
fn a_chunk_that_turns_out_too_big_is_split() {
    let slow = 100_000..100_400;
    let work = 199_600 * 1000 + 400 * 10 * MS;
    let mut sim = Sim::new(&[(2, 2), (2, 2), (2, 2), (2, 2)], &[1]);
    sim.map(0, 0, 200_000, move |item| if slow.contains(&item) { 10 * MS } else { 1000 });
    sim.run_until(u64::MAX);
    assert_eq!(sim.finished, [0]);
    assert!(sim.now < work / 8 * 3 / 2, "{} ms, and {} would be perfect", sim.now / MS, work / 8 / MS);
}

#[test]
fn a_late_chunk_is_asked_for_once() {
    let mut config = Config::default();
    config.chunk_target_ns = MS;
    let mut world = World::new(config);
    world.join(1, 1);
    let job = world.open(JobPolicy::default());
    // Learns that items are quick, so that all but the last chunks have several.
    world.arrive(job, 0, 64);
    world.schedule();
    while world.agents[&0].chunks[0].left.len() < 8 {
        world.run_all(0, 0, 1000);
        world.schedule();
    }
    // Queued items go to a second agent, which then has no idle slot.
    world.join(1, 100);
    world.schedule();
    world.credit(1, 0);
    let asked = |world: &mut World, at: u64| {
        world.now = at;
        let actions = world.schedule();
        actions.iter().filter(|action| matches!(action, Action::Retract { .. })).count()
    };
    while !world.agents[&1].chunks.is_empty() {
        world.run_all(1, 0, 1000);
    }
    let given = world.now;
    world.join(2, 2);
    assert_eq!(asked(&mut world, given + 3 * MS), 0, "the chunk is not late");
    assert_eq!(asked(&mut world, given + 9 * MS), 1);
    assert_eq!(asked(&mut world, given + 20 * MS), 0, "the chunk has been asked for");
    let first = world.agents[&0].chunks[0].left[0];
    world.give_back(0, 0, first, 0);
    assert_eq!(asked(&mut world, given + 40 * MS), 0, "the chunk was kept");
    world.drain();
}

#[test]
fn closing_a_pool_cancels_its_jobs_only() {
    let mut world = World::new(Config::default());
    world.join(1, 2);
    let pool = world.open_pool(1, 0, 1);
    let (stays, goes) = (world.open(one_by_one()), world.open_in(pool, one_by_one()));
    world.arrive(stays, 0, 3);
    world.arrive(goes, 0, 3);
    world.schedule();
    world.close_pool(1);
    assert_eq!((world.jobs[&goes].finished, world.jobs[&stays].finished), (Some(true), None));
    world.drain();
}

/// Ids are used again; reports about their previous owners are late.
#[test]
fn late_reports_of_former_chunks_are_stale() {
    let mut world = World::new(Config::default());
    world.join(1, 1);
    let job = world.open(one_by_one());
    world.arrive(job, 0, 2);
    world.schedule();
    let (agent, old) = (world.agents[&0].id, world.agents[&0].chunks[0].clone());
    world.run_all(0, 0, 1000);
    world.schedule();
    let new = world.agents[&0].chunks[0].id;
    assert_eq!((old.id.index(), old.id.generation() + 1), (new.index(), new.generation()));
    let (chunk, attempt) = (old.id, old.attempt);
    for event in [
        Event::RunDone { agent, chunk, attempt, first: 0, count: 1, busy_ns: 0, failed: false },
        Event::RunDone { agent, chunk, attempt, first: 1, count: 1, busy_ns: 0, failed: false },
        Event::ItemFaulted { agent, chunk, attempt, item: 1, fault: Fault::Died },
        Event::Returned { agent, chunk, attempt, first: 1, count: 1 },
    ] {
        assert_eq!(world.send(event), []);
        world.stale_expected += 1;
    }
    // An answer to a retraction that crossed the last result does not count as stale.
    assert_eq!(world.send(Event::Returned { agent, chunk, attempt, first: 0, count: 0 }), []);
    world.drain();
}
