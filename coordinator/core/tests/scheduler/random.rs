//! Whatever happens in whatever order, every item has one outcome and is in exactly one place.
//!
//! The fake world compares every action with its own records as it comes; here events are drawn at random.

use std::num::NonZeroU64;

use farpool_core::{AgentId, ChunkId, Config, Event, Fault, JobPolicy};
use farpool_testkit::doses;
use proptest::prelude::*;

use crate::world::restart::Fate;
use crate::world::{FakeAgent, World};

/// A step, and numbers that select its targets; each is taken modulo the number of targets at that time.
#[derive(Clone, Debug)]
enum Step {
    Join {
        slots: u32,
        credit: u32,
        labels: Vec<u32>,
    },
    Lose {
        agent: usize,
    },
    /// The agent is considered lost, but is not.
    GiveUp {
        agent: usize,
    },
    Reconnect {
        agent: usize,
    },
    /// The scheduler is restarted.
    Restart {
        fates: Vec<Fate>,
    },
    Wait {
        ns: u64,
    },
    /// The agent reports that it is leaving.
    DrainAgent {
        agent: usize,
    },
    PlaceUnhealthy {
        place: usize,
    },
    AgentHealthChanged {
        agent: usize,
        unhealthy: bool,
    },
    /// An agent that drains and holds nothing leaves.
    Leave,
    Credit {
        agent: usize,
        chunks: u32,
        bytes: u64,
    },
    OpenPool {
        limit: u32,
        weight: u32,
        require: Vec<u32>,
    },
    ClosePool {
        pool: usize,
    },
    Pause {
        pool: usize,
        paused: bool,
    },
    /// An agent that was told to start a pool answers.
    Start {
        place: usize,
    },
    Unfit {
        place: usize,
    },
    /// An agent that was told to stop a pool answers.
    Stopped {
        place: usize,
    },
    Open {
        pool: usize,
        chunksize: u64,
        retries: u32,
        retry_panics: bool,
        retry_failed: bool,
        priority: i32,
        speculate: bool,
        require: Vec<u32>,
        item_bytes: u64,
    },
    Arrive {
        job: usize,
        gap: u64,
        count: u64,
    },
    End {
        job: usize,
    },
    StopRetries {
        job: usize,
    },
    Cancel {
        job: usize,
    },
    Run {
        agent: usize,
        chunk: usize,
        from: usize,
        count: usize,
        busy_ns: u64,
        failed: bool,
    },
    Fault {
        agent: usize,
        chunk: usize,
        item: usize,
        fault: Fault,
    },
    GiveBack {
        agent: usize,
        chunk: usize,
        from: usize,
        count: usize,
    },
    /// Answers a retraction: with all unfinished items, or with none.
    Answer {
        all: bool,
    },
    Garbage {
        agent: usize,
        chunk: usize,
        what: Garbage,
    },
    Schedule,
}

#[derive(Clone, Copy, Debug)]
enum Garbage {
    UnknownChunk(u64),
    WrongAttempt,
    WrongAgent,
    Outside(u64, u64),
    DoneBefore,
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..64usize;
    let fault = prop_oneof![Just(Fault::Final), Just(Fault::Died), Just(Fault::Panicked)];
    let fate = prop_oneof![3 => Just(Fate::InTime), 1 => Just(Fate::Late), 1 => Just(Fate::Never)];
    let garbage = prop_oneof![
        any::<u64>().prop_map(Garbage::UnknownChunk),
        Just(Garbage::WrongAttempt),
        Just(Garbage::WrongAgent),
        (any::<u64>(), any::<u64>()).prop_map(|(first, count)| Garbage::Outside(first, count)),
        (0..9u64, 0..9u64).prop_map(|(first, count)| Garbage::Outside(first, count)),
        Just(Garbage::DoneBefore),
        Just(Garbage::Nothing),
    ];
    prop_oneof![
        3 => (1..4u32, 0..6u32, labels(4)).prop_map(|(slots, credit, labels)| Step::Join { slots, credit, labels }),
        1 => n.clone().prop_map(|agent| Step::Lose { agent }),
        1 => n.clone().prop_map(|agent| Step::DrainAgent { agent }),
        1 => (n.clone(), any::<bool>()).prop_map(|(agent, unhealthy)| Step::AgentHealthChanged { agent, unhealthy }),
        1 => n.clone().prop_map(|place| Step::PlaceUnhealthy { place }),
        2 => Just(Step::Leave),
        2 => (n.clone(), 0..6u32, prop_oneof![Just(0), 1..200u64])
            .prop_map(|(agent, chunks, bytes)| Step::Credit { agent, chunks, bytes }),
        1 => (0..4u32, 1..3u32, labels(2)).prop_map(|(limit, weight, require)| Step::OpenPool { limit, weight, require }),
        1 => (0..200usize).prop_map(|pool| Step::ClosePool { pool }),
        1 => (n.clone(), any::<bool>()).prop_map(|(pool, paused)| Step::Pause { pool, paused }),
        5 => n.clone().prop_map(|place| Step::Start { place }),
        1 => n.clone().prop_map(|place| Step::Unfit { place }),
        2 => n.clone().prop_map(|place| Step::Stopped { place }),
        2 => (n.clone(), 0..5u64, 0..3u32, any::<(bool, bool, bool)>(), -1..2i32, labels(1), prop_oneof![Just(0), 1..50u64]).prop_map(
            |(pool, chunksize, retries, (retry_panics, retry_failed, speculate), priority, require, item_bytes)| {
                Step::Open { pool, chunksize, retries, retry_panics, retry_failed, priority, speculate, require, item_bytes }
            }
        ),
        1 => n.clone().prop_map(|agent| Step::GiveUp { agent }),
        2 => n.clone().prop_map(|agent| Step::Reconnect { agent }),
        1 => prop::collection::vec(fate, 1..4).prop_map(|fates| Step::Restart { fates }),
        2 => prop_oneof![1..10_000_000u64, Just(10_000_000_000)].prop_map(|ns| Step::Wait { ns }),
        4 => (n.clone(), 0..3u64, 1..12u64).prop_map(|(job, gap, count)| Step::Arrive { job, gap: gap.saturating_sub(1), count }),
        1 => n.clone().prop_map(|job| Step::End { job }),
        1 => n.clone().prop_map(|job| Step::StopRetries { job }),
        1 => n.clone().prop_map(|job| Step::Cancel { job }),
        10 => (n.clone(), n.clone(), prop_oneof![3 => Just(0), 1 => n.clone()], 1..9usize, prop_oneof![Just(0), 1..5_000_000u64], failed())
            .prop_map(|(agent, chunk, from, count, busy_ns, failed)| Step::Run { agent, chunk, from, count, busy_ns, failed }),
        4 => (n.clone(), n.clone(), n.clone(), fault)
            .prop_map(|(agent, chunk, item, fault)| Step::Fault { agent, chunk, item, fault }),
        2 => (n.clone(), n.clone(), n.clone(), 1..9usize)
            .prop_map(|(agent, chunk, from, count)| Step::GiveBack { agent, chunk, from, count }),
        3 => any::<bool>().prop_map(|all| Step::Answer { all }),
        2 => (n.clone(), n, garbage).prop_map(|(agent, chunk, what)| Step::Garbage { agent, chunk, what }),
        10 => Just(Step::Schedule),
    ]
}

/// Draws whether results count as failed.
fn failed() -> impl Strategy<Value = bool> {
    prop_oneof![2 => Just(false), 1 => Just(true)]
}

/// Usually few of four labels, most often none.
fn labels(most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0..4u32, 1..=most)]
}

fn pick<T: Copy>(from: impl Iterator<Item = T>, number: usize) -> Option<T> {
    let all: Vec<T> = from.collect();
    (!all.is_empty()).then(|| all[number % all.len()])
}

fn open_job(world: &World, number: usize, with_input: bool) -> Option<u32> {
    let open = world.jobs.iter().filter(|(_, job)| job.finished.is_none() && !(with_input && job.ended));
    pick(open.map(|(&job, _)| job), number)
}

/// An agent, one of its chunks, and a run of unfinished items of it.
fn held(world: &World, agent: usize, chunk: usize, from: usize, count: usize) -> Option<(u32, usize, u64, u64)> {
    let busy = world.agents.iter().filter(|(_, agent)| !agent.chunks.is_empty());
    let agent = pick(busy.map(|(&place, _)| place), agent)?;
    let chunks = &world.agents[&agent].chunks;
    let at = chunk % chunks.len();
    let left = &chunks[at].left;
    let from = from % left.len();
    let run = (from..left.len()).take(count).take_while(|&at| left[at] - left[from] == (at - from) as u64);
    Some((agent, at, left[from], run.count() as u64))
}

fn take(world: &mut World, step: &Step) -> Option<()> {
    match *step {
        Step::Join { slots, credit, ref labels } => {
            if world.agents.len() < 5 {
                world.join_with(slots, credit, labels);
            }
        }
        Step::AgentHealthChanged { agent, unhealthy } => {
            let agent = pick(world.agents.keys().copied(), agent)?;
            world.unhealthy(agent, unhealthy);
        }
        Step::PlaceUnhealthy { place } => {
            let places = world.agents.iter().flat_map(|(&agent, fake)| {
                let serves = |place: &crate::world::FakePlace| {
                    place.started && !place.unhealthy && !place.unfit && !place.stopping
                };
                let started = fake.places.iter().filter(move |(_, place)| serves(place));
                started.map(move |(&pool, _)| (agent, pool))
            });
            let (agent, pool) = pick(places, place)?;
            world.set_place_unhealthy(agent, pool);
        }
        Step::DrainAgent { agent } => {
            let agent = pick(world.agents.keys().copied(), agent)?;
            world.drain_agent(agent);
        }
        Step::Leave => {
            let has_drained = |agent: &FakeAgent| agent.draining && agent.chunks.is_empty();
            let agent = world.agents.iter().find_map(|(&place, agent)| has_drained(agent).then_some(place))?;
            world.lose(agent);
        }
        Step::OpenPool { limit, weight, ref require } => {
            let number = (0..4).find(|number| !world.pools.contains_key(number))?;
            world.open_pool_with(number, limit, weight, require);
        }
        Step::ClosePool { pool } => {
            let pool = pool as u32;
            world.pools.get(&pool)?;
            world.close_pool(pool);
        }
        Step::Pause { pool, paused } => {
            let pool = pick(world.pools.keys().copied(), pool)?;
            world.pause(pool, paused);
        }
        Step::Start { place } => {
            let (agent, pool) = pick(world.starting(), place)?;
            world.started(agent, pool);
        }
        Step::Stopped { place } => {
            let (agent, pool) = pick(world.stopping(), place)?;
            world.stopped(agent, pool);
        }
        Step::Unfit { place } => {
            let places = world.agents.iter().flat_map(|(&agent, fake)| {
                fake.places
                    .iter()
                    .filter(|(_, place)| !place.unfit && !place.stopping)
                    .map(move |(&pool, _)| (agent, pool))
            });
            let (agent, pool) = pick(places, place)?;
            world.unfit(agent, pool);
        }
        Step::Lose { agent } => {
            let agent = pick(world.agents.keys().copied(), agent)?;
            world.lose(agent);
        }
        Step::GiveUp { agent } => {
            let agent = pick(world.agents.keys().copied(), agent)?;
            world.give_up(agent);
        }
        Step::Reconnect { agent } => {
            let at = pick(0..world.away.len(), agent)?;
            world.reconnect(at);
        }
        Step::Restart { ref fates } => world.restart(fates),
        Step::Wait { ns } => world.now += ns,
        Step::Credit { agent, chunks, bytes } => {
            let agent = pick(world.agents.keys().copied(), agent)?;
            world.credit_bytes(agent, chunks, bytes);
        }
        Step::Open {
            pool,
            chunksize,
            retries,
            retry_panics,
            retry_failed,
            priority,
            speculate,
            ref require,
            item_bytes,
        } => {
            let pool = world.pools[&pick(world.pools.keys().copied(), pool)?].id;
            let chunksize = NonZeroU64::new(chunksize);
            let policy = JobPolicy { chunksize, retries, retry_panics, retry_failed, priority, speculate };
            world.open_with(pool, policy, require, item_bytes);
        }
        Step::Arrive { job, gap, count } => world.arrive(open_job(world, job, true)?, gap, count),
        Step::End { job } => world.end(open_job(world, job, true)?),
        Step::Cancel { job } => world.cancel(open_job(world, job, false)?),
        Step::StopRetries { job } => world.stop_retries(open_job(world, job, false)?),
        Step::Run { agent, chunk, from, count, busy_ns, failed } => {
            let (agent, at, first, count) = held(world, agent, chunk, from, count)?;
            match failed {
                true => world.run_failed(agent, at, first, count, busy_ns),
                false => world.run(agent, at, first, count, busy_ns),
            }
        }
        Step::Fault { agent, chunk, item, fault } => {
            let (agent, at, item, _) = held(world, agent, chunk, item, 1)?;
            world.fault(agent, at, item, fault);
        }
        Step::GiveBack { agent, chunk, from, count } => {
            let (agent, at, first, count) = held(world, agent, chunk, from, count)?;
            world.give_back(agent, at, first, count);
        }
        Step::Answer { all } => {
            let asked = world.agents.iter().find_map(|(&place, agent)| {
                let at = agent.chunks.iter().position(|chunk| chunk.asked_back)?;
                Some((place, at))
            });
            let (agent, at) = asked?;
            let left = world.agents[&agent].chunks[at].left.clone();
            let run = left.iter().enumerate().take_while(|(at, item)| **item - left[0] == *at as u64).count();
            world.give_back(agent, at, left[0], if all { run as u64 } else { 0 });
        }
        Step::Garbage { agent, chunk, what } => garbage(world, agent, chunk, what)?,
        Step::Schedule => {
            world.schedule();
        }
    }
    Some(())
}

fn garbage(world: &mut World, agent: usize, chunk: usize, what: Garbage) -> Option<()> {
    let (place, at, mut first, mut count) = held(world, agent, chunk, 0, 1)?;
    let held = &world.agents[&place].chunks[at];
    let (mut agent, mut chunk, mut attempt) = (world.agents[&place].id, held.id, held.attempt);
    match what {
        Garbage::UnknownChunk(bits) => chunk = ChunkId::from_bits(bits),
        Garbage::WrongAttempt => attempt += 1,
        Garbage::WrongAgent => agent = AgentId::from_bits(agent.to_bits() + 1),
        Garbage::Outside(offset, more) => {
            first = first.wrapping_add(offset);
            count = more;
            // The rest of such a run would be accepted.
            if held.overtaken {
                return None;
            }
            // Nearly every such run is wrong; those that happen to be right are not garbage.
            let fits = count > 0 && count < 99 && (0..count).all(|n| held.left.contains(&first.wrapping_add(n)));
            if fits {
                return None;
            }
        }
        Garbage::DoneBefore => first = (held.first..first).next_back()?,
        Garbage::Nothing => count = 0,
    }
    world.stale_expected += 1;
    let done = Event::RunDone { agent, chunk, attempt, first, count, busy_ns: 7, failed: count % 2 == 1 };
    assert_eq!(world.send(done), []);
    if count == 1 {
        world.stale_expected += 2;
        let fault = Event::ItemFaulted { agent, chunk, attempt, item: first, fault: Fault::Died };
        assert_eq!(world.send(fault), []);
        assert_eq!(world.send(Event::Returned { agent, chunk, attempt, first, count }), []);
    }
    Some(())
}

/// Steps in the middle of a job that may have copies, with few agents.
fn step_with_copies() -> impl Strategy<Value = Step> {
    let n = 0..64usize;
    prop_oneof![
        8 => (n.clone(), n.clone(), prop_oneof![2 => Just(0), 1 => n.clone()], 1..5usize, 1..90_000u64, failed())
            .prop_map(|(agent, chunk, from, count, busy_ns, failed)| Step::Run { agent, chunk, from, count, busy_ns, failed }),
        3 => (n.clone(), n.clone(), n.clone(), prop_oneof![Just(Fault::Died), Just(Fault::Panicked), Just(Fault::Final)])
            .prop_map(|(agent, chunk, item, fault)| Step::Fault { agent, chunk, item, fault }),
        2 => (n.clone(), n.clone(), n.clone(), 1..5usize)
            .prop_map(|(agent, chunk, from, count)| Step::GiveBack { agent, chunk, from, count }),
        3 => any::<bool>().prop_map(|all| Step::Answer { all }),
        6 => Just(Step::Wait { ns: 10_000_000_000 }),
        8 => Just(Step::Schedule),
        1 => (0..8u64).prop_map(|count| Step::Arrive { job: 0, gap: 0, count: count + 1 }),
        1 => Just(Step::End { job: 0 }),
        1 => (n.clone(), n.clone(), (0..9u64, 0..9u64))
            .prop_map(|(agent, chunk, (first, count))| Step::Garbage { agent, chunk, what: Garbage::Outside(first, count) }),
        6 => prop_oneof![
            4 => (1..3u32, 1..4u32).prop_map(|(slots, credit)| Step::Join { slots, credit, labels: Vec::new() }),
            1 => n.clone().prop_map(|agent| Step::Lose { agent }),
            1 => n.clone().prop_map(|agent| Step::DrainAgent { agent }),
            1 => (n.clone(), any::<bool>()).prop_map(|(agent, unhealthy)| Step::AgentHealthChanged { agent, unhealthy }),
            1 => n.clone().prop_map(|place| Step::Unfit { place }),
            1 => n.clone().prop_map(|agent| Step::GiveUp { agent }),
            2 => n.clone().prop_map(|agent| Step::Reconnect { agent }),
            1 => Just(Step::Restart { fates: vec![Fate::InTime, Fate::InTime, Fate::Late] }),
            1 => Just(Step::Cancel { job: 0 }),
            1 => any::<bool>().prop_map(|paused| Step::Pause { pool: 0, paused }),
        ],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(doses::cases(2000)))]

    #[test]
    fn every_item_has_one_outcome(
        steps in prop::collection::vec(step(), 1..120),
        quick in any::<bool>(),
        starts_at_once in any::<bool>(),
    ) {
        let mut config = Config::default();
        // With so short a target, most chunks are late.
        config.chunk_target_ns = if quick { 500 } else { 1_000_000 };
        config.chunk_target_bytes = 100;
        let mut world = World::new(config);
        world.starts_at_once = starts_at_once;
        for step in &steps {
            take(&mut world, step);
        }
        world.drain();
    }

    #[test]
    fn the_first_outcome_of_each_item_counts(
        agents in prop::collection::vec((1..3u32, 1..5u32), 2..4),
        jobs in prop::collection::vec((0..4u64, 1..3u32, any::<(bool, bool)>(), 4..14u64), 1..3),
        limit in 0..4u32,
        steps in prop::collection::vec(step_with_copies(), 1..100),
    ) {
        let mut config = Config::default();
        config.chunk_target_ns = 50_000;
        let mut world = World::empty(config);
        let pool = world.open_pool(0, limit, 1);
        for (slots, credit) in agents {
            world.join(slots, credit);
        }
        for (chunksize, retries, (retry_panics, retry_failed), items) in jobs {
            let chunksize = NonZeroU64::new(chunksize);
            let policy = JobPolicy { chunksize, retries, retry_panics, retry_failed, priority: 0, speculate: true };
            let job = world.open_in(pool, policy);
            world.arrive(job, 0, items);
        }
        for step in &steps {
            take(&mut world, step);
        }
        world.drain();
    }
}
