//! Results that count as failed, of jobs that retry such items.

use std::num::NonZeroU64;

use farpool_core::{Action, Config, Event, JobPolicy};

use crate::world::World;

const MS: u64 = 1_000_000;

fn policy(chunksize: u64, retries: u32) -> JobPolicy {
    JobPolicy { chunksize: NonZeroU64::new(chunksize), retries, retry_failed: true, ..JobPolicy::default() }
}

/// A job of this many items, all of them at one agent.
fn given(policy: JobPolicy, items: u64) -> World {
    let mut world = World::new(Config::default());
    world.join(1, 9);
    world.map(policy, items);
    world.schedule();
    world.log.clear();
    world
}

/// What the client receives: first item, number of items, attempts.
fn received(world: &World) -> Vec<(u64, u64, u32)> {
    let received = world.log.iter().filter_map(|action| match *action {
        Action::Accept { first, count, attempts, .. } => Some((first, count, attempts)),
        Action::Fail { .. } => panic!("all that failed here has a result"),
        _ => None,
    });
    received.collect()
}

fn attempts(world: &World) -> Vec<(u64, u32)> {
    world.agents[&0].chunks.iter().map(|chunk| (chunk.left[0], chunk.attempt)).collect()
}

#[test]
fn a_failed_item_is_run_again_until_its_retries_are_used_up() {
    for retries in 0..3 {
        let mut world = given(policy(1, retries), 1);
        for attempt in 1..=retries {
            world.run_failed(0, 0, 0, 1, MS);
            assert_eq!(received(&world), [], "after attempt {attempt} of {retries} retries");
            world.schedule();
            assert_eq!(attempts(&world), [(0, attempt + 1)]);
        }
        world.run_failed(0, 0, 0, 1, MS);
        assert_eq!(received(&world), [(0, 1, retries + 1)]);
        world.expect_nothing_left();
    }
}

#[test]
fn an_item_that_passes_reports_its_attempt() {
    let mut world = given(policy(1, 2), 1);
    world.run_failed(0, 0, 0, 1, MS);
    world.schedule();
    world.run(0, 0, 0, 1, MS);
    assert_eq!(received(&world), [(0, 1, 2)]);
    world.expect_nothing_left();
}

#[test]
fn other_jobs_take_the_first_result() {
    for policy in [JobPolicy { retry_failed: false, ..policy(1, 2) }, policy(1, 0)] {
        let mut world = given(policy, 1);
        world.run_failed(0, 0, 0, 1, MS);
        assert_eq!(received(&world), [(0, 1, 1)]);
        world.expect_nothing_left();
    }
}

#[test]
fn each_item_of_a_chunk_has_its_own_attempts() {
    let mut world = given(policy(4, 1), 4);
    // One report about the last three, and then one about the first.
    world.run_failed(0, 0, 1, 3, MS);
    world.run(0, 0, 0, 1, MS);
    assert_eq!(received(&world), [(0, 1, 1)]);
    world.schedule();
    // Each in a chunk of its own, so that none waits behind one that failed before.
    assert_eq!(attempts(&world), [(1, 2), (2, 2), (3, 2)]);
    world.run_failed(0, 1, 2, 1, MS);
    world.drain();
    assert_eq!(received(&world), [(0, 1, 1), (2, 1, 2), (1, 1, 2), (3, 1, 2)]);
}

#[test]
fn a_report_about_several_attempts_is_taken_apart() {
    // The lost agent may have begun the first item, so that one is at its second attempt. The others are at their
    // first.
    let mut world = given(policy(4, 1), 4);
    world.lose(0);
    world.join(1, 9);
    world.schedule();
    assert_eq!(attempts(&world), [(0, 2)]);
    world.log.clear();
    world.run_failed(0, 0, 0, 4, MS);
    assert_eq!(received(&world), [(0, 1, 2)]);
    world.schedule();
    assert_eq!(attempts(&world), [(1, 2), (2, 2), (3, 2)]);
    world.drain();
    // A report of results that do not count as failed is taken apart, too.
    let mut world = given(policy(4, 1), 4);
    world.lose(0);
    world.join(1, 9);
    world.schedule();
    world.run(0, 0, 0, 4, MS);
    assert_eq!(received(&world), [(0, 1, 2), (1, 3, 1)]);
    world.expect_nothing_left();
}

#[test]
fn a_late_report_of_an_earlier_attempt_is_dropped() {
    let mut world = given(policy(1, 2), 1);
    let (agent, chunk) = (world.agents[&0].id, world.agents[&0].chunks[0].id);
    world.run_failed(0, 0, 0, 1, MS);
    world.schedule();
    for failed in [true, false] {
        world.stale_expected += 1;
        let late = Event::RunDone { agent, chunk, attempt: 1, first: 0, count: 1, busy_ns: 0, failed };
        assert_eq!(world.send(late), []);
    }
    world.drain();
}

#[test]
fn any_agent_may_run_it_again() {
    let mut world = World::new(Config::default());
    world.join(1, 1);
    world.map(policy(1, 1), 1);
    world.schedule();
    world.drain_agent(0);
    world.run_failed(0, 0, 0, 1, MS);
    world.join(1, 1);
    world.schedule();
    assert_eq!(world.agents[&1].chunks[0].attempt, 2);
    world.drain();
}

#[test]
fn after_retries_are_stopped_a_failure_is_final() {
    let mut world = given(policy(1, 5), 3);
    world.run_failed(0, 0, 0, 1, MS);
    world.stop_retries(0);
    world.run_failed(0, 0, 1, 1, MS);
    assert_eq!(received(&world), [(1, 1, 1)]);
    // Items queued for a retry still get it, and items lost with an agent get another attempt.
    world.schedule();
    assert_eq!(attempts(&world), [(2, 1), (0, 2)]);
    world.lose(0);
    world.join(1, 9);
    world.schedule();
    assert_eq!(attempts(&world), [(0, 3), (2, 2)]);
    world.run_failed(0, 0, 0, 1, MS);
    world.run_failed(0, 0, 2, 1, MS);
    assert_eq!(received(&world), [(1, 1, 1), (0, 1, 3), (2, 1, 2)]);
    world.expect_nothing_left();
}
