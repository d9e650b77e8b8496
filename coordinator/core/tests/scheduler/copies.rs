//! Second copies of chunks that straggle: when and where they run, and which outcome counts.

use std::num::NonZeroU64;

use farpool_core::{Action, Config, Event, Fault, Id, JobPolicy};

use crate::world::{Outcome, World};

const MS: u64 = 1_000_000;

fn policy(chunksize: u64, retries: u32) -> JobPolicy {
    JobPolicy { chunksize: NonZeroU64::new(chunksize), retries, speculate: true, ..JobPolicy::default() }
}

/// Two agents with a slot each. The first holds the first chunk of the job. All others are done: their items took 10
/// ms.
fn late(policy: JobPolicy, items: u64) -> World {
    let mut world = World::new(Config::default());
    world.join(1, 1);
    world.map(policy, items);
    world.schedule();
    world.join(1, 1);
    while !world.schedule().is_empty() {
        if !world.agents[&1].chunks.is_empty() {
            world.run_all(1, 0, 10 * MS);
        }
    }
    assert_eq!((world.agents[&0].chunks.len(), world.agents[&1].chunks.len()), (1, 0));
    world
}

/// Returns the world of [`late`] a second later, when the second agent has a copy.
fn copied(policy: JobPolicy, items: u64) -> World {
    let mut world = late(policy, items);
    world.now += 1000 * MS;
    world.schedule();
    assert_eq!((world.copies, world.agents[&1].chunks.len()), (1, 1));
    world.log.clear();
    world
}

fn outcome(world: &World, item: u64) -> Option<Outcome> {
    world.jobs[&0].items[&item].outcome
}

fn holds(world: &World) -> [usize; 2] {
    [0, 1].map(|agent| world.agents.get(&agent).map_or(0, |agent| agent.chunks.len()))
}

/// Checks whether there is a copy after this time, when `prepare` has changed one condition.
#[track_caller]
fn check_when(after: u64, expected: bool, prepare: impl Fn(&mut World)) {
    let mut world = late(policy(1, 1), 9);
    prepare(&mut world);
    world.now += after;
    world.schedule();
    assert_eq!(world.copies > 0, expected);
    world.drain();
}

#[test]
fn a_chunk_straggles_when_it_takes_far_longer_than_others() {
    // Twice the 10 ms of an item, and the floor of 100 ms.
    check_when(119 * MS, false, |_| {});
    check_when(121 * MS, true, |_| {});
}

#[test]
fn one_slow_item_makes_slow_items_ordinary() {
    let check = |slow, after, expected: u32| {
        let mut world = World::new(Config::default());
        world.join(1, 1);
        world.map(policy(1, 1), 9);
        world.schedule();
        world.join(1, 1);
        world.schedule();
        world.run_all(1, 0, slow);
        while !world.schedule().is_empty() {
            world.run_all(1, 0, 10 * MS);
        }
        world.now += after;
        world.schedule();
        assert_eq!(world.copies, expected);
        world.drain();
    };
    check(10 * MS, 1000 * MS, 1);
    check(900 * MS, 1000 * MS, 0);
    check(900 * MS, 2000 * MS, 1);
}

#[test]
fn finished_items_do_not_make_a_chunk_late() {
    // Of ten items of 10 ms each, nine are done and took 90 ms.
    for (after, expected) in [(290 * MS, 0), (310 * MS, 1)] {
        let mut world = late(policy(10, 1), 20);
        world.run(0, 0, 0, 9, 90 * MS);
        world.now += after;
        world.schedule();
        assert_eq!(world.copies, expected, "after {after}");
        world.drain();
    }
}

#[test]
fn only_idle_slots_run_copies() {
    let long = 1000 * MS;
    check_when(long, true, |_| {});
    check_when(long, false, |world| world.credit(1, 0));
    check_when(long, false, |world| world.pause(0, true));
    check_when(long, false, |world| drop(world.drain_agent(1)));
    check_when(long, false, |world| drop(world.unfit(1, 0)));
    // Never at the agent of the first copy.
    check_when(long, false, |world| {
        world.lose(1);
        world.credit(0, 5);
    });
    // Queued items go first.
    check_when(long, false, |world| {
        let other = world.map(policy(1, 0), 1);
        world.schedule();
        assert_eq!(world.agents[&1].chunks[0].job, other);
    });
}

#[test]
fn some_jobs_have_no_copies() {
    for policy in [policy(1, 0), JobPolicy { speculate: false, ..policy(1, 3) }] {
        let mut world = late(policy, 5);
        world.now += 100_000 * MS;
        world.schedule();
        assert_eq!(world.copies, 0);
        world.drain();
    }
    // It is unknown how long its items take.
    let mut world = World::new(Config::default());
    world.join(1, 1);
    world.map(policy(1, 1), 1);
    world.schedule();
    world.join(1, 1);
    world.now += 100_000 * MS;
    world.schedule();
    assert_eq!(world.copies, 0);
    world.drain();
}

#[test]
fn nothing_is_copied_while_items_are_queued() {
    let mut world = World::new(Config::default());
    world.join(1, 1);
    let job = world.open(policy(1, 1));
    world.arrive(job, 0, 3);
    world.schedule();
    world.join(1, 1);
    while !world.schedule().is_empty() {
        world.run_all(1, 0, 10 * MS);
    }
    world.pause(0, true);
    world.arrive(job, 0, 1);
    world.now += 1000 * MS;
    world.pause(0, false);
    // The queued item takes the slot.
    world.schedule();
    assert_eq!((world.copies, world.agents[&1].chunks[0].first), (0, 3));
    world.run_all(1, 0, 10 * MS);
    world.now += 10 * MS;
    world.schedule();
    assert_eq!(world.copies, 1);
    world.drain();
}

/// [`Core::next_due`](farpool_core::Core::next_due) asks for rounds often enough, but not constantly.
#[test]
fn late_chunks_are_looked_at_in_time() {
    let mut world = late(policy(1, 1), 3);
    let (began, mut looks) = (world.now, 0);
    while world.copies == 0 {
        let next = world.core.next_due().expect("a slot idles and a chunk is late");
        world.now = world.now.max(next);
        world.schedule();
        looks += 1;
    }
    assert!(world.now - began < 130 * MS, "after {}", world.now - began);
    assert!(looks < 40, "{looks} looks");
    // Every agent has a chunk now.
    assert_eq!(world.core.next_due(), None);
    world.drain();
}

#[test]
fn the_first_outcome_counts_and_the_other_copy_is_cancelled() {
    for (winner, loser) in [(0, 1), (1, 0)] {
        let mut world = copied(policy(1, 1), 3);
        let chunk = world.agents[&loser].chunks[0].id;
        world.run(winner, 0, 0, 1, 5 * MS);
        assert_eq!((outcome(&world, 0), holds(&world)), (Some(Outcome::Done), [0, 0]));
        assert!(world.cancelled.contains(&chunk));
        let end = world.log.iter().position(|action| matches!(action, Action::JobFinished { .. }));
        let cancel = world.log.iter().position(|action| matches!(action, Action::CancelChunk { .. }));
        assert!(cancel < end, "{:?}", world.log);
        world.drain();
    }
}

#[test]
fn each_item_of_a_copy_counts_by_itself() {
    let mut world = copied(policy(4, 1), 8);
    // Both run 0 .. 4. The second agent finishes 0 and 1 first, the first agent 3.
    world.run(1, 0, 0, 2, 20 * MS);
    world.run(0, 0, 3, 1, 10 * MS);
    assert_eq!(holds(&world), [1, 1]);
    // Only item 2 of the first agent's next report is new. Then nothing remains for the second.
    world.run(0, 0, 0, 3, 30 * MS);
    assert_eq!((world.core.stale_reports(), holds(&world)), (1, [0, 0]));
    assert_eq!(world.cancelled.len(), 2);
    world.drain();
}

#[test]
fn only_valid_reports_of_a_copy_are_accepted() {
    let mut world = copied(policy(4, 2), 8);
    world.run(1, 0, 1, 1, 10 * MS);
    let (agent, chunk) = (world.agents[&0].id, world.agents[&0].chunks[0].id);
    for (attempt, first, count) in [(2, 0, 4), (1, 4, 5), (1, 1, 1), (1, 2, u64::MAX)] {
        let done = Event::RunDone { agent, chunk, attempt, first, count, busy_ns: 1, failed: false };
        assert_eq!(world.send(done), [], "{first}+{count} at attempt {attempt}");
        assert_eq!(world.send(Event::Returned { agent, chunk, attempt, first, count }), []);
        world.stale_expected += 2;
    }
    assert_eq!(
        world.send(Event::RunDone { agent, chunk, attempt: 1, first: 0, count: 0, busy_ns: 1, failed: false }),
        []
    );
    world.stale_expected += 1;
    world.drain();
}

#[test]
fn items_that_were_not_copied_continue() {
    // The first agent is late with 0 and 2, and has done 1: only 0 is copied.
    let mut world = late(policy(3, 2), 6);
    world.run(0, 0, 1, 1, 10 * MS);
    world.now += 1000 * MS;
    world.schedule();
    assert_eq!(world.agents[&1].chunks[0].left, [0]);
    let chunk = world.agents[&0].chunks[0].id;
    world.run(1, 0, 0, 1, 10 * MS);
    assert_eq!((holds(&world), world.cancelled.len()), ([1, 0], 0));
    // Then item 2 is copied.
    world.now += 1000 * MS;
    world.schedule();
    assert_eq!((world.copies, world.agents[&1].chunks[0].left.clone()), (2, vec![2]));
    // The first agent finishes all that counts, and still runs 0.
    world.run(0, 0, 2, 1, 10 * MS);
    assert_eq!(holds(&world), [0, 0]);
    assert!(world.cancelled.contains(&chunk));
    world.drain();
}

/// Which faults end attempts, at which agent (0 or 1), and the expected outcome of the item.
#[track_caller]
fn check_faults(retries: u32, faults: &[(u32, Fault)], expected: Option<Outcome>, queued: u64) {
    let mut world = copied(policy(1, retries), 3);
    for &(agent, fault) in faults {
        world.fault(agent, 0, 0, fault);
    }
    let progress = world.core.progress(world.jobs[&0].id);
    assert_eq!((outcome(&world, 0), progress.map_or(0, |progress| progress.queued)), (expected, queued), "{faults:?}");
    world.drain();
}

#[test]
fn a_failed_attempt_counts_and_the_other_copy_continues() {
    let failed = |attempts| Some(Outcome::Failed { attempts, lost: false });
    for (one, other) in [(0, 1), (1, 0)] {
        check_faults(1, &[(one, Fault::Died)], None, 0);
        check_faults(1, &[(one, Fault::Died), (other, Fault::Died)], failed(2), 0);
        check_faults(2, &[(one, Fault::Died), (other, Fault::Died)], None, 1);
        // Another attempt would end the same.
        check_faults(2, &[(one, Fault::Final)], failed(1), 0);
        check_faults(2, &[(one, Fault::Panicked)], failed(1), 0);
        check_faults(2, &[(one, Fault::Died), (other, Fault::Final)], failed(2), 0);
    }
}

#[test]
fn the_last_attempt_is_not_copied() {
    for retries in [1, 2] {
        let mut world = copied(policy(1, retries), 3);
        world.fault(0, 0, 0, Fault::Died);
        world.now += 100_000 * MS;
        world.schedule();
        assert_eq!(world.copies, retries, "after one try of {}", retries + 1);
        world.drain();
    }
}

#[test]
fn a_tried_item_is_queued_separately() {
    // 1 failed at the first agent, and the second gives everything back. Then the first is lost.
    let mut world = copied(policy(4, 2), 8);
    world.fault(0, 0, 1, Fault::Died);
    world.give_back(1, 0, 0, 4);
    let queued = |world: &World| world.core.progress(world.jobs[&0].id).expect("the job is open").queued;
    assert_eq!(queued(&world), 1);
    world.credit(1, 5);
    world.lose(0);
    assert_eq!(queued(&world), 4);
    world.schedule();
    let chunks: Vec<_> = world.agents[&1].chunks.iter().map(|chunk| (chunk.left.clone(), chunk.attempt)).collect();
    assert_eq!(chunks, [(vec![0], 2), (vec![1], 2), (vec![2, 3], 1)]);
    world.drain();
}

#[test]
fn attempts_of_both_copies_count_when_an_agent_is_lost() {
    let mut world = copied(policy(1, 2), 3);
    world.fault(1, 0, 0, Fault::Died);
    world.lose(0);
    assert!(world.log.iter().any(|action| matches!(action, Action::Retrying { item: 0, attempt: 3, .. })));
    world.drain();
}

#[test]
fn a_copy_ends_before_a_tried_item() {
    // A worker of the first agent died under 1 before the agent was lost. The second continues its copy.
    let mut world = copied(policy(4, 2), 8);
    world.fault(0, 0, 1, Fault::Died);
    world.lose(0);
    world.join(1, 1);
    world.now += 10_000 * MS;
    world.schedule();
    assert_eq!((world.copies, world.agents[&0].chunks[0].left.clone()), (2, vec![0]));
    // The second begins 1 as the next attempt.
    world.run(0, 0, 0, 1, 10 * MS);
    world.now += 10_000 * MS;
    world.schedule();
    let copy = &world.agents[&0].chunks[0];
    assert_eq!((world.copies, copy.left.clone(), copy.attempt), (3, vec![1, 2, 3], 2));
    world.drain();
}

#[test]
fn a_leaving_agent_needs_no_worker_for_overtaken_items() {
    let mut world = World::empty(Config::default());
    let pool = world.open_pool(0, 2, 1);
    world.join(1, 1);
    let job = world.open_in(pool, policy(1, 1));
    world.arrive(job, 0, 3);
    world.schedule();
    world.join(1, 1);
    while !world.schedule().is_empty() {
        world.run_all(1, 0, 10 * MS);
    }
    world.drain_agent(0);
    world.join(1, 1);
    world.now += 1000 * MS;
    world.schedule();
    assert_eq!(world.copies, 1);
    assert!(world.agents[&2].places.is_empty());
    world.run_all(1, 0, 10 * MS);
    assert_eq!(world.agents[&2].places[&0].workers, 1);
    world.drain();
}

#[test]
fn a_copy_lost_with_its_agent_counts_no_attempt() {
    for (gone, stays) in [(0, 1), (1, 0)] {
        let mut world = copied(policy(2, 1), 4);
        world.lose(gone);
        assert_eq!((world.jobs[&0].items[&0].faults, world.log.len()), (0, 0));
        // Without its twin it is a chunk like any other, which may get a copy again.
        world.join(1, 1);
        world.now += 10_000 * MS;
        world.schedule();
        assert_eq!((world.copies, world.agents[&stays].chunks.len()), (2, 1));
        world.lose(stays);
        world.drain();
    }
    // Items that only the lost agent had count an attempt as usual.
    let mut world = copied(policy(3, 1), 6);
    world.give_back(1, 0, 0, 1);
    world.lose(0);
    assert_eq!((world.jobs[&0].items[&0].faults, world.jobs[&0].items[&1].faults), (1, 0));
    world.drain();
}

#[test]
fn items_that_one_returns_stay_with_the_other() {
    let mut world = copied(policy(3, 1), 6);
    world.give_back(1, 0, 1, 2);
    world.give_back(0, 0, 0, 3);
    let progress = world.core.progress(world.jobs[&0].id).expect("the job is open");
    assert_eq!((progress.queued, holds(&world)), (2, [0, 1]));
    world.drain();
    let mut world = copied(policy(3, 1), 6);
    world.unfit(1, 0);
    assert_eq!((holds(&world), world.core.progress(world.jobs[&0].id).map(|job| job.queued)), ([1, 0], Some(0)));
    world.drain();
    let mut world = copied(policy(3, 1), 6);
    world.cancel(0);
    assert_eq!(holds(&world), [0, 0]);
    world.drain();
}

#[test]
fn overtaken_items_free_their_bytes() {
    let mut world = World::empty(Config::default());
    let pool = world.open_pool(0, 0, 1);
    let slow = world.join(1, 1);
    let job = world.open_with(pool, policy(2, 1), &[], 100);
    world.arrive(job, 0, 4);
    world.end(job);
    world.schedule();
    let quick = world.join(1, 1);
    world.schedule();
    world.run_all(quick, 0, 10 * MS);
    world.now += 1000 * MS;
    world.schedule();
    // The copy uses up the agent's credit in bytes. The outcomes of the other agent make room.
    world.credit_bytes(quick, 2, 150);
    world.map(policy(1, 0), 1);
    assert!(world.schedule().is_empty());
    world.run(slow, 0, 0, 1, 10 * MS);
    let given = world.schedule();
    assert!(given.iter().any(|action| matches!(action, Action::Assign { agent, .. } if agent.index() == quick)));
    world.drain();
}

/// A report costs time in proportion to its items, not to all items of the job that were tried.
#[test]
fn a_chunk_whose_copies_both_fail_costs_time_in_proportion() {
    const ITEMS: u64 = 30_000;
    let retrying = JobPolicy { retry_failed: true, ..policy(ITEMS, 1) };
    let mut world = late(retrying, 3 * ITEMS);
    world.now += 1_000_000 * MS;
    world.schedule();
    let straggles = world.agents[&0].chunks[0].first;
    world.run_failed(1, 0, straggles, ITEMS, MS);
    let began = std::time::Instant::now();
    world.run_failed(0, 0, straggles, ITEMS, MS);
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_millis(500), "{took:?}");
    assert_eq!(outcome(&world, straggles), Some(Outcome::Done), "the item's attempts are used up");
    world.expect_nothing_left();
}
