//! Where pools may run, with how many workers, and how that changes when agents join and leave.

use std::num::NonZeroU64;

use farpool_core::{Action, Config, JobPolicy, PoolId};

use crate::world::World;

fn one_by_one() -> JobPolicy {
    JobPolicy { chunksize: NonZeroU64::new(1), ..JobPolicy::default() }
}

fn world() -> World {
    World::empty(Config::default())
}

/// A job of this many items in the pool.
fn map(world: &mut World, pool: PoolId, require: &[u32], items: u64) -> u32 {
    let job = world.open_with(pool, one_by_one(), require, 8);
    world.arrive(job, 0, items);
    world.end(job);
    job
}

/// Returns how many chunks each agent holds.
fn held(world: &World) -> Vec<usize> {
    world.agents.values().map(|agent| agent.chunks.len()).collect()
}

/// Returns the workers of a pool at each agent; 0: it has no place there.
fn workers(world: &World, pool: u32) -> Vec<u32> {
    world.agents.values().map(|agent| agent.places.get(&pool).map_or(0, |place| place.workers)).collect()
}

/// Agents with their labels, the labels that a pool and a job of it require, and the number of chunks each agent gets.
#[track_caller]
fn check_labels(agents: &[&[u32]], pool: &[u32], job: &[u32], expected: &[usize]) {
    for agents_come_first in [true, false] {
        let mut world = world();
        let mut id = None;
        if !agents_come_first {
            id = Some(world.open_pool_with(0, 0, 1, pool));
        }
        for labels in agents {
            world.join_with(1, 2, labels);
        }
        let id = id.unwrap_or_else(|| world.open_pool_with(0, 0, 1, pool));
        map(&mut world, id, job, 100);
        world.schedule();
        assert_eq!(held(&world), expected, "{agents:?} {pool:?} {job:?}");
        world.drain();
    }
}

#[test]
fn labels_select_agents() {
    check_labels(&[&[], &[1], &[1, 2]], &[], &[], &[2, 2, 2]);
    check_labels(&[&[], &[1], &[1, 2]], &[1], &[], &[0, 2, 2]);
    check_labels(&[&[], &[1], &[1, 2]], &[], &[1], &[0, 2, 2]);
    check_labels(&[&[], &[1], &[1, 2]], &[1], &[2], &[0, 0, 2]);
    check_labels(&[&[], &[1], &[1, 2]], &[1, 2], &[1], &[0, 0, 2]);
    check_labels(&[&[], &[1], &[1, 2]], &[3], &[], &[0, 0, 0]);
}

/// A pool with a limit, agents with their slots and the workers that others have there, and the pool's workers at each.
#[track_caller]
fn check_allotment(agents: &[(u32, u32)], limit: u32, expected: &[u32]) {
    let mut world = world();
    for (number, &(slots, taken)) in agents.iter().enumerate() {
        world.join_with(slots, slots, &[number as u32]);
        if taken > 0 {
            world.open_pool_with(100 + number as u32, taken, 1, &[number as u32]);
        }
    }
    world.open_pool(0, limit, 1);
    assert_eq!(workers(&world, 0), expected, "{agents:?} {limit}");
}

#[test]
fn workers_go_where_least_is_committed() {
    check_allotment(&[(4, 0), (4, 0)], 4, &[2, 2]);
    check_allotment(&[(4, 0), (4, 0)], 3, &[2, 1]);
    check_allotment(&[(2, 0), (4, 0)], 3, &[1, 2]);
    check_allotment(&[(4, 2), (4, 0)], 2, &[0, 2]);
    check_allotment(&[(4, 2), (4, 0)], 4, &[1, 3]);
    // Slots are shared, so commitments are no bound, but the slots of an agent are.
    check_allotment(&[(4, 4), (4, 4)], 4, &[2, 2]);
    check_allotment(&[(1, 0), (2, 0)], 9, &[1, 2]);
    check_allotment(&[(1, 0), (1, 0), (1, 0)], 2, &[1, 1, 0]);
}

#[test]
fn an_agents_allotment_goes_to_others() {
    let mut world = world();
    for _ in 0..2 {
        world.join(2, 2);
    }
    world.open_pool(0, 3, 1);
    assert_eq!(workers(&world, 0), [2, 1]);
    // Workers that fit nowhere wait for a new agent.
    world.lose(0);
    assert_eq!(workers(&world, 0), [2]);
    world.join(4, 4);
    assert_eq!(workers(&world, 0), [1, 2]);
    // The first agent's worker goes nowhere: the other has no slot left.
    world.unfit(0, 0);
    assert_eq!(workers(&world, 0), [1, 2]);
    world.unfit(1, 0);
    world.join(1, 1);
    assert_eq!(workers(&world, 0)[2], 1);
}

/// An agent's workers die at start: agents with slots get what it was allotted, and the rest returns to it.
#[test]
fn an_unhealthy_agents_allotment_goes_to_others() {
    let mut world = world();
    for _ in 0..2 {
        world.join(2, 2);
    }
    let pool = world.open_pool(0, 3, 1);
    assert_eq!(workers(&world, 0), [2, 1]);
    let job = map(&mut world, pool, &[], 3);
    world.schedule();
    assert!(!world.agents[&0].chunks.is_empty());
    world.unhealthy(0, true);
    // Not before it has given back what it holds.
    assert_eq!(workers(&world, 0), [2, 1]);
    while !world.agents[&0].chunks.is_empty() {
        let first = world.agents[&0].chunks[0].first;
        world.give_back(0, 0, first, 1);
    }
    assert_eq!(workers(&world, 0), [1, 2]);
    // It must serve pools that fit nowhere else.
    world.open_pool(1, 2, 1);
    assert_eq!(workers(&world, 1), [0, 2]);
    world.open_pool(2, 4, 1);
    assert_eq!(workers(&world, 2), [2, 2]);
    // A new agent joins, and gets the workers that fitted nowhere.
    world.join(2, 2);
    assert_eq!(workers(&world, 2), [0, 2, 2]);
    world.unhealthy(0, false);
    world.open_pool(3, 1, 1);
    assert_eq!(workers(&world, 3), [1, 0, 0]);
    world.cancel(job);
    world.drain();
}

/// The same for one pool, while only some agents can serve another one.
#[test]
fn an_unhealthy_places_allotment_goes_to_others() {
    let mut world = world();
    for _ in 0..2 {
        world.join(2, 2);
    }
    let pool = world.open_pool(0, 3, 1);
    let job = map(&mut world, pool, &[], 3);
    world.schedule();
    world.set_place_unhealthy(0, 0);
    while !world.agents[&0].chunks.is_empty() {
        let first = world.agents[&0].chunks[0].first;
        world.give_back(0, 0, first, 1);
    }
    // Workers that no other agent has slots for return.
    assert_eq!(workers(&world, 0), [1, 2]);
    world.schedule();
    world.set_place_unhealthy(0, 0);
    assert_eq!(workers(&world, 0), [1, 2], "no other agent has a free slot");
    while !world.agents[&0].chunks.is_empty() {
        let first = world.agents[&0].chunks[0].first;
        world.give_back(0, 0, first, 1);
    }
    // Other pools are not affected, and this one moves to a free slot as soon as there is one.
    world.open_pool(1, 4, 1);
    assert_eq!(workers(&world, 1), [2, 2]);
    world.join(2, 2);
    assert_eq!((workers(&world, 0), workers(&world, 1)), (vec![0, 2, 1], vec![2, 2, 0]));
    world.cancel(job);
    world.drain();
}

/// Retractions for a place may be unanswered when the place is given up, and when the pool has a place there again.
#[test]
fn a_new_place_counts_retractions_for_its_predecessor() {
    let mut world = world();
    world.join(1, 3);
    let pool = world.open_pool(0, 2, 1);
    let job = map(&mut world, pool, &[], 3);
    world.schedule();
    assert_eq!(held(&world), [3]);
    world.join(1, 3);
    world.schedule();
    let asked = world.agents[&0].chunks.iter().filter(|chunk| chunk.asked_back).count();
    assert_eq!(asked, 1, "one chunk is asked back for the other agent");
    world.join(1, 3);
    world.set_place_unhealthy(1, 0);
    assert_eq!(workers(&world, 0), [1, 0, 1]);
    world.lose(2);
    assert_eq!(workers(&world, 0), [1, 1]);
    let at = world.agents[&0].chunks.iter().position(|chunk| chunk.asked_back).expect("a chunk was asked for");
    let first = world.agents[&0].chunks[at].first;
    world.give_back(0, at, first, 1);
    world.schedule();
    assert_eq!(held(&world), [2, 1]);
    world.cancel(job);
    world.drain();
}

/// When a pool's workers stop, they forget its jobs.
#[test]
fn a_pool_that_returns_to_an_agent_starts_its_jobs_again() {
    let mut world = world();
    world.join(1, 2);
    let pool = world.open_pool(0, 1, 1);
    let job = map(&mut world, pool, &[], 10);
    world.schedule();
    assert_eq!(held(&world), [2]);
    world.join(1, 2);
    world.unhealthy(0, true);
    while !world.agents[&0].chunks.is_empty() {
        let first = world.agents[&0].chunks[0].first;
        world.give_back(0, 0, first, 1);
    }
    world.schedule();
    assert_eq!((workers(&world, 0), held(&world)), (vec![0, 1], vec![0, 2]));
    // The pool cannot stay at the second agent.
    world.lose(1);
    world.unhealthy(0, false);
    world.schedule();
    assert_eq!((workers(&world, 0), held(&world)), (vec![1], vec![2]));
    world.cancel(job);
    world.drain();
}

/// A pool of this many workers on an agent with slots and credit holds this many chunks, and never more than its share.
#[track_caller]
fn check_share(slots: u32, credit: u32, limit: u32, expected: usize) {
    let mut world = world();
    world.join(slots, credit);
    let pool = world.open_pool(0, limit, 1);
    map(&mut world, pool, &[], 100);
    world.schedule();
    assert_eq!(held(&world), [expected], "{slots} {credit} {limit}");
    world.drain();
}

#[test]
fn a_place_holds_what_its_workers_run_and_prefetch() {
    check_share(4, 8, 1, 5);
    check_share(4, 6, 1, 3);
    check_share(4, 4, 1, 1);
    check_share(4, 2, 1, 1);
    check_share(4, 6, 3, 5);
    check_share(4, 6, 4, 6);
    check_share(4, 6, 9, 6);
    check_share(4, 0, 1, 0);
}

#[test]
fn a_draining_agent_keeps_what_it_runs() {
    let mut world = world();
    world.join(2, 4);
    let pool = world.open_pool(0, 2, 1);
    map(&mut world, pool, &[], 10);
    world.schedule();
    world.join(2, 4);
    world.drain_agent(0);
    // The two workers may still run something.
    assert_eq!(workers(&world, 0), [2, 0]);
    for _ in 0..2 {
        let newest = world.agents[&0].chunks.last().expect("the agent holds four chunks").first;
        world.give_back(0, world.agents[&0].chunks.len() - 1, newest, 1);
    }
    assert_eq!(workers(&world, 0), [2, 0]);
    world.run_all(0, 0, 1000);
    assert_eq!(workers(&world, 0), [2, 1]);
    world.run_all(0, 0, 1000);
    assert_eq!(workers(&world, 0), [2, 2]);
    world.schedule();
    assert_eq!(held(&world), [0, 4]);
    world.lose(0);
    world.drain();
}

#[test]
fn a_paused_pool_gets_nothing_and_keeps_its_chunks() {
    let mut world = world();
    world.join(1, 3);
    let pool = world.open_pool(0, 0, 1);
    map(&mut world, pool, &[], 4);
    world.schedule();
    world.pause(0, true);
    world.run_all(0, 0, 1000);
    world.join(1, 1);
    assert_eq!(world.schedule(), []);
    // The other agent gets the queued one, and nothing need be taken back. Then it idles again.
    world.pause(0, false);
    world.schedule();
    assert_eq!(held(&world), [2, 1]);
    world.pause(0, true);
    world.run_all(1, 0, 1000);
    assert_eq!(world.schedule(), []);
    world.pause(0, false);
    let asked = world.schedule();
    assert!(matches!(asked[..], [Action::Retract { .. }]), "{asked:?}");
    world.drain();
}

/// The first agent holds chunks of two pools. Others join, and each pool runs on some. `expected` chunks are asked
/// back.
#[track_caller]
fn check_taken_back(chunks: &[(u32, u64)], labels: &[&[u32]], expected: usize) {
    let mut world = world();
    let pools: Vec<PoolId> = (0..3).map(|number| world.open_pool_with(number, 0, 1, &[number])).collect();
    world.join_with(1, 20, &[0, 1, 2]);
    for &(pool, items) in chunks {
        map(&mut world, pools[pool as usize], &[], items);
        world.schedule();
    }
    for labels in labels {
        world.join_with(1, 1, labels);
    }
    let asked = |world: &mut World| {
        let actions = world.schedule();
        actions.iter().filter(|action| matches!(action, Action::Retract { .. })).count()
    };
    assert_eq!(asked(&mut world), expected, "{chunks:?} {labels:?}");
    assert_eq!(asked(&mut world), 0);
    world.drain();
}

#[test]
fn only_chunks_that_can_run_elsewhere_are_taken_back() {
    check_taken_back(&[(0, 3)], &[&[0]], 1);
    check_taken_back(&[(0, 3)], &[&[1]], 0);
    // The newest are of another pool.
    check_taken_back(&[(0, 3), (1, 3)], &[&[0]], 1);
    check_taken_back(&[(0, 3), (1, 3)], &[&[0], &[1], &[2]], 2);
    check_taken_back(&[(0, 2), (1, 1), (2, 1)], &[&[0, 1], &[1, 2], &[0, 2]], 3);
    check_taken_back(&[(0, 1), (1, 1)], &[&[0], &[0]], 1);
}

#[test]
fn a_new_worker_gets_a_chunk_that_waits_for_another() {
    let mut world = world();
    world.join(1, 3);
    let pool = world.open_pool(0, 2, 1);
    // One worker there, and a chunk that waits for it.
    map(&mut world, pool, &[], 2);
    world.schedule();
    assert_eq!(held(&world), [2]);
    world.join(8, 8);
    let asked = world.schedule();
    assert!(matches!(asked[..], [Action::Retract { .. }]), "{asked:?}");
    let last = world.agents[&0].chunks[1].first;
    world.give_back(0, 1, last, 1);
    world.schedule();
    assert_eq!(held(&world), [1, 1]);
    world.drain();
}

/// Items of a size, a byte credit and a bound for a chunk, and the sizes of the chunks that are handed out.
#[track_caller]
fn check_bytes(item_bytes: u64, credit: u64, chunksize: u64, expected: &[u64]) {
    let mut config = Config::default();
    config.chunk_target_bytes = 1000;
    let mut world = World::empty(config);
    let pool = world.open_pool(0, 0, 1);
    world.join(1, 1);
    let policy = JobPolicy { chunksize: NonZeroU64::new(chunksize), ..JobPolicy::default() };
    // Learns that items are quick.
    let job = world.open_with(pool, policy, &[], item_bytes);
    world.arrive(job, 0, 5000);
    while world.jobs[&job].items.values().any(|item| item.outcome.is_none()) {
        world.schedule();
        world.run_all(0, 0, 1000);
    }
    world.arrive(job, 0, 5000);
    world.credit_bytes(0, 4, credit);
    world.schedule();
    let sizes: Vec<u64> = world.agents[&0].chunks.iter().map(|chunk| chunk.left.len() as u64).collect();
    assert_eq!(sizes, expected, "{item_bytes} {credit} {chunksize}");
    world.drain();
}

#[test]
fn chunks_and_agents_are_bounded_in_bytes() {
    check_bytes(0, 0, 0, &[1000; 4]);
    check_bytes(10, 0, 0, &[100; 4]);
    check_bytes(300, 0, 0, &[3; 4]);
    check_bytes(5000, 0, 0, &[1; 4]);
    check_bytes(5000, 0, 2, &[2; 4]);
    // An agent has room as long as it holds less than its credit.
    check_bytes(10, 1000, 0, &[100]);
    check_bytes(10, 1001, 0, &[100; 2]);
    check_bytes(5000, 1, 0, &[1]);
    check_bytes(1, 25, 10, &[10; 3]);
}

#[test]
fn bytes_are_given_back_as_items_are_done() {
    let mut world = world();
    let pool = world.open_pool(0, 0, 1);
    world.join(1, 1);
    let policy = JobPolicy { chunksize: NonZeroU64::new(4), ..JobPolicy::default() };
    let job = world.open_with(pool, policy, &[], 100);
    world.arrive(job, 0, 20);
    world.credit_bytes(0, 9, 800);
    world.schedule();
    assert_eq!(held(&world), [2]);
    world.run(0, 0, 0, 1, 0);
    world.schedule();
    assert_eq!(held(&world), [3]);
    world.run(0, 0, 1, 3, 0);
    world.schedule();
    // Four of the first chunk are done, and eight items are held.
    assert_eq!(held(&world), [2]);
    world.run(0, 0, 4, 1, 0);
    world.schedule();
    assert_eq!(held(&world), [3]);
    world.drain();
}

#[test]
fn a_closing_pool_starts_nowhere() {
    let mut world = world();
    world.join(1, 1);
    let pool = world.open_pool(0, 1, 1);
    map(&mut world, pool, &[], 1);
    world.schedule();
    // Its chunks keep the worker that another agent could have.
    world.drain_agent(0);
    world.join(1, 1);
    world.log.clear();
    world.close_pool(0);
    assert!(!world.log.iter().any(|action| matches!(action, Action::StartPool { .. })), "{:?}", world.log);
}

#[test]
fn a_new_lane_shares_agents_that_are_ready() {
    let mut world = world();
    world.starts_at_once = false;
    let pools = [0, 1].map(|number| world.open_pool(number, 0, 1));
    let agents = [0, 1].map(|_| world.join_with(1, 1, &[7]));
    // One pool runs at both agents, the other only at the second, which they share.
    let first = map(&mut world, pools[0], &[7], 1);
    for (agent, pool) in [(agents[0], 1), (agents[1], 0), (agents[1], 1)] {
        world.started(agent, pool);
    }
    let second = map(&mut world, pools[1], &[7], 1);
    world.schedule();
    assert_eq!(world.agents.values().map(|agent| agent.chunks[0].job).collect::<Vec<_>>(), [second, first]);
    world.drain();
}

#[test]
fn pools_share_agents_whatever_starts_first() {
    for order in 0..6 {
        let mut world = world();
        world.starts_at_once = false;
        let pools: Vec<PoolId> = (0..3).map(|number| world.open_pool(number, 0, 1)).collect();
        for &pool in &pools {
            world.join(1, 2);
            map(&mut world, pool, &[], 20);
        }
        let mut places: Vec<(u32, u32)> = world.starting().collect();
        places.sort_by_key(|&(agent, pool)| (agent * 7 + pool * 5 + order * 3) % 11);
        for (agent, pool) in places {
            world.started(agent, pool);
            // An agent that is ready is used at once.
            world.schedule();
        }
        // A late pool, and one that one of the agents cannot run.
        world.open_pool(3, 0, 1);
        world.unfit(1, 1);
        world.join(1, 2);
        world.schedule();
        world.drain();
    }
}
