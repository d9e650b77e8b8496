//! Measures how many decisions the core makes a second, and how much memory a queued chunk takes.
//!
//! A decision is handing out a chunk of one item and taking its completion. Run with `cargo bench -p farpool-core`. A
//! number as argument is the number of decisions for each line; `agents=100` leaves out the lines with other numbers of
//! agents.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use farpool_core::{Action, AgentId, ChunkId, Config, Core, Event, Fault, Id, JobId, JobPolicy, Labels, PoolId};

struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as i64, Relaxed);
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as i64, Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and the block came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too, without `--bench` and in a debug build, only to see that it works.
    let measure = words.iter().any(|word| word == "--bench");
    let decisions = words.iter().find_map(|word| word.parse().ok()).unwrap_or(if measure { 4_000_000 } else { 1000 });
    let only: Option<u32> = words.iter().find_map(|word| word.strip_prefix("agents=")?.parse().ok());
    println!(
        "{:>8} {:>6} {:>6} {:>6} {:>6} {:>14} {:>12} {:>14}",
        "agents", "pools", "limit", "jobs", "batch", "decisions/s", "ns/decision", "allocs/1000"
    );
    for (agents, pools, limit, jobs, batch) in [
        (1, 1, 0, 1, 1),
        (1, 1, 0, 1, 16),
        (2, 1, 0, 1, 16),
        (100, 1, 0, 1, 16),
        (100, 1, 0, 10, 16),
        (100, 20, 0, 20, 16),
        (10_000, 1, 0, 1, 1),
        (10_000, 1, 0, 1, 64),
        (10_000, 1, 0, 1000, 64),
        // Hundreds of pools, on all agents or on a few each, so that several share each slot.
        (10_000, 300, 0, 300, 64),
        (100, 500, 0, 500, 16),
        (1000, 500, 8, 500, 16),
        (100, 500, 4, 500, 16),
    ] {
        if !measure && agents > 100 || only.is_some_and(|only| only != agents) {
            continue;
        }
        let (seconds, allocations) = decide(agents, (pools, limit), jobs, batch, decisions);
        let rate = decisions as f64 / seconds;
        println!(
            "{agents:>8} {pools:>6} {limit:>6} {jobs:>6} {batch:>6} {rate:>14.0} {:>12.1} {:>14.2}",
            1e9 / rate,
            allocations as f64 * 1000.0 / decisions as f64
        );
    }
    if !measure {
        return;
    }
    println!();
    println!(
        "bytes a queued chunk of one item: {:.1} fresh, {:.1} given back one by one, {:.1} tried again, {:.1} at an agent",
        queued(Queued::Fresh),
        queued(Queued::GivenBack),
        queued(Queued::TriedAgain),
        queued(Queued::Held)
    );
}

fn pool(index: u32) -> PoolId {
    PoolId::new(index, 1)
}

fn agent(index: u32) -> AgentId {
    AgentId::new(index, 1)
}

/// Returns seconds and allocations for this many decisions. Each agent has two slots and a prefetch of two, and the
/// jobs are spread over the pools. A pool has a limit, or 0 for none. Completions come from random agents, `batch` of
/// them between two rounds of scheduling.
fn decide(agents: u32, (pools, limit): (u32, u32), jobs: u32, batch: usize, decisions: u64) -> (f64, u64) {
    let mut core = Core::new(Config::default());
    let mut actions = Vec::new();
    for index in 0..agents {
        core.handle(Event::AgentJoined { agent: agent(index), slots: 2, labels: Labels::default() }, &mut actions);
        core.handle(Event::AgentCredit { agent: agent(index), chunks: 4, bytes: 0 }, &mut actions);
    }
    for index in 0..pools {
        let (pool, slots, require) = (pool(index), NonZeroU32::new(limit), Labels::default());
        core.handle(Event::PoolOpened { pool, slots, weight: 1, require, held: Vec::new() }, &mut actions);
        for action in std::mem::take(&mut actions) {
            if let Action::StartPool { agent, pool, .. } = action {
                core.handle(Event::PlaceStarted { pool, agent }, &mut actions);
            }
        }
    }
    for index in 0..jobs {
        let pool = pool(index % pools);
        let job = JobId::new(index, 1);
        let policy = JobPolicy { chunksize: NonZeroU64::new(1), ..JobPolicy::default() };
        core.handle(Event::JobOpened { job, pool, policy, require: Labels::default() }, &mut actions);
        core.handle(Event::ItemsArrived { job, first: 0, count: u64::MAX / 2, bytes: 0 }, &mut actions);
    }
    let mut held: Vec<(AgentId, ChunkId, u64)> = Vec::new();
    let mut seed = 1u64;
    let mut made = 0;
    let warm = decisions / 10;
    let mut start = (Instant::now(), 0);
    while made < decisions + warm {
        core.schedule(made, &mut actions);
        for action in actions.drain(..) {
            if let Action::Assign { agent, chunk, first, .. } = action {
                held.push((agent, chunk, first));
            }
        }
        for _ in 0..batch {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % held.len();
            let (agent, chunk, first) = held.swap_remove(at);
            core.handle(
                Event::RunDone { agent, chunk, attempt: 1, first, count: 1, busy_ns: 1000, failed: false },
                &mut actions,
            );
            made += 1;
            if made == warm {
                start = (Instant::now(), ALLOCATIONS.load(Relaxed));
            }
            if held.is_empty() {
                break;
            }
        }
        actions.clear();
    }
    assert_eq!(core.stale_reports(), 0);
    (start.0.elapsed().as_secs_f64(), ALLOCATIONS.load(Relaxed) - start.1)
}

enum Queued {
    Fresh,
    GivenBack,
    TriedAgain,
    Held,
}

/// Returns the bytes for each of a million chunks of one item.
fn queued(how: Queued) -> f64 {
    const CHUNKS: u64 = 1_000_000;
    let before = LIVE_BYTES.load(Relaxed);
    let mut core = Core::new(Config::default());
    let mut actions = Vec::with_capacity(2 * CHUNKS as usize);
    let scratch = actions.capacity() * size_of::<Action>();
    let job = JobId::new(0, 1);
    let policy = JobPolicy { chunksize: NonZeroU64::new(1), retries: 2, ..JobPolicy::default() };
    core.handle(
        Event::PoolOpened { pool: pool(0), slots: None, weight: 1, require: Labels::default(), held: Vec::new() },
        &mut actions,
    );
    core.handle(Event::JobOpened { job, pool: pool(0), policy, require: Labels::default() }, &mut actions);
    core.handle(Event::ItemsArrived { job, first: 0, count: CHUNKS, bytes: 8 * CHUNKS }, &mut actions);
    if !matches!(how, Queued::Fresh) {
        let agent = agent(0);
        core.handle(Event::AgentJoined { agent, slots: 1, labels: Labels::default() }, &mut actions);
        core.handle(Event::PlaceStarted { pool: pool(0), agent }, &mut actions);
        core.handle(Event::AgentCredit { agent, chunks: CHUNKS as u32, bytes: 0 }, &mut actions);
        core.schedule(0, &mut actions);
    }
    if matches!(how, Queued::Fresh | Queued::Held) {
        return (LIVE_BYTES.load(Relaxed) - before - scratch as i64) as f64 / CHUNKS as f64;
    }
    // The slab entries of assigned chunks stay and are reused. This counts only what queueing adds.
    let held = std::mem::take(&mut actions);
    let before = LIVE_BYTES.load(Relaxed);
    let mut back = 0;
    for action in &held {
        let &Action::Assign { agent, chunk, attempt, first, .. } = action else { continue };
        let event = match how {
            // Every other one, so that they do not join.
            Queued::GivenBack if first % 2 == 1 => continue,
            Queued::GivenBack => Event::Returned { agent, chunk, attempt, first, count: 1 },
            _ => Event::ItemFaulted { agent, chunk, attempt, item: first, fault: Fault::Died },
        };
        core.handle(event, &mut actions);
        actions.clear();
        back += 1;
    }
    (LIVE_BYTES.load(Relaxed) - before) as f64 / f64::from(back)
}
