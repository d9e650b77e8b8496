//! Whole clusters in simulated time: the real coordinator, the real sessions of agents and clients, and everything that
//! can go wrong between them.
//!
//! # What is real
//! A cluster runs on one thread, in tokio's paused time. These parts are real: the coordinator's loop, the sessions and
//! ledgers of agents, the sessions of clients and their calls for detached jobs, and the frames between all of them.
//! These are simulated:
//!
//! - the network (`network.rs`);
//! - the workers (`workers.rs`), and what items do and may result in (`plan.rs`);
//! - the coordinator's disk (`coordinator/store/src/log/simulated.rs`; `disk.rs` decides its faults);
//! - the client programs (`client.rs`; those that detach and attach: `detached/`);
//! - the faults (`world/faults.rs`).
//!
//! The real code has a few seams for this: `caller_driven.rs` in `client/session/src/cluster/` and in its `detached/`,
//! `in_process.rs` and `blocking.rs` in `coordinator/server/src/`, `in_time.rs` in `coordinator/store/src/log/`, and
//! the traits `Workers` and `Connect` in `agent/daemon/src/session/parts.rs`. No feature of a crate switches anything
//! in the daemons for tests.
//!
//! # Histories
//! A seed is a history. All randomness comes from it, including all ids, so a seed gives the same history every time, to the
//! last byte. For every 50th seed this is checked.
//!
//! Each history draws several kinds of faults, so that rare pairs of them meet. Connections are cut, half open, or lost
//! for one side while earlier messages still arrive late. Hosts are partitioned, both ways or one way. Agents, clients
//! and coordinators are killed, stopped, asleep, leaving or slow. Workers die one by one or all at once. Reports arrive
//! late or twice. In two of eleven histories some items count as failed, and clients stop retries. Then the faults
//! stop, and the cluster must come to rest.
//!
//! In every third history the coordinator keeps detached jobs. The journal's writer is then a task instead of a thread,
//! and time may pass between any two of its steps, and before each read. The next coordinator finds on the disk what
//! was synced, and any part of the rest, cut off or with holes. The disk may be slow, full, or fail, and it may hang at
//! any step until its host goes down. One host detaches jobs. Others attach to them, cancel and discard them. Some jobs
//! are abandoned or lose their client before they are complete.
//!
//! # What must hold
//! - The core's invariants, after every event.
//! - Each item has one outcome, which is possible given how it ran. No item fails while it has attempts left, or takes more of them
//!   than its job allows. Items that run at most once never start twice. No agent gets more than it asked for.
//! - Of detached jobs (`detached/known_jobs.rs`): acknowledged data is kept, and nothing of an incomplete job runs.
//!   Every reader finds the same outcomes, including those read before. Jobs that have ended or were discarded stay so.
//! - In the end (`world/rest.rs`): every job has ended. Nothing is left at coordinators, agents, clients and on disk, not even a
//!   report kept for a coordinator that never comes. A job for all slots keeps all of them busy.
//!
//! # How to run it
//! `cargo test -p farpool-session --test simulation` runs as many histories as [`doses`] says, and all that have found a bug
//! before ([`found`]). It prints the seeds that fail. `cargo test -p farpool-session --test simulation -- --seed N` replays one
//! and prints it, message by message. `--from N` and `--seeds N` choose others, as do the variables SIMULATION_FROM and
//! SIMULATION_SEEDS.
//!
//! A change to what is drawn changes the histories of all seeds. Then find new seeds for [`found`], by removing the fix
//! that each is about.

mod agent;
mod client;
mod connector;
mod coordinator;
mod detached;
mod disk;
mod found;
mod network;
mod plan;
mod process;
mod program;
mod trace;
mod workers;
mod world;

use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use farpool_testkit::doses;

use trace::Report;
use world::World;

const THREADS: u64 = 2;
/// How many lines are shown of a failed history.
const MAX_LINES: usize = 100;

fn main() -> ExitCode {
    panic::set_hook(Box::new(|panic| trace::violation(format_args!("a panic: {panic}"))));
    let ended = run(&std::env::args().skip(1).collect::<Vec<String>>());
    program::remove();
    ended
}

fn run(arguments: &[String]) -> ExitCode {
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--seed") {
        return replay(seed);
    }
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = number("--seeds").or(variable("SIMULATION_SEEDS")).unwrap_or_else(doses::histories);
    let from = number("--from").or(variable("SIMULATION_FROM")).unwrap_or(0);
    run_many(from, count)
}

/// Runs the history of a seed.
fn run_seed(seed: u64, max_lines: usize) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("out of memory");
    runtime.block_on(async {
        trace::begin(max_lines);
        let run = tokio::spawn(World::new(seed).run());
        // The panic hook has recorded any panic.
        let _ = run.await;
    });
    drop(runtime);
    trace::end()
}

fn replay(seed: u64) -> ExitCode {
    let report = run_seed(seed, usize::MAX);
    report.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} events, digest {:016x}", report.events, report.digest);
    match report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn run_many(from: u64, count: u64) -> ExitCode {
    let requested = from..from.saturating_add(count);
    let known = found::SEEDS.iter().map(|(seed, _)| *seed).filter(|seed| !requested.contains(seed));
    let seeds: Vec<u64> = known.chain(requested.clone()).collect();
    let (next, failed, events) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let report = run_seed(seed, 0);
                    events.fetch_add(report.events, Ordering::Relaxed);
                    // Some seeds run twice, to check that a seed gives the same history.
                    let again = seed % 50 == 0 && run_seed(seed, 0).digest != report.digest;
                    let violation =
                        if again { Some("the same seed gave another history".to_owned()) } else { report.violation };
                    if let Some(violation) = violation {
                        failed.lock().expect("a thread panicked while it held the lock").push((seed, violation));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("a thread panicked while it held the lock");
    failed.sort();
    let (took, events) = (began.elapsed(), events.into_inner());
    let histories = seeds.len();
    println!("{histories} histories of {events} events in {took:.1?}, {} of them with a violation", failed.len());
    for (seed, violation) in &failed {
        println!("seed {seed}: {violation}");
        if let Some((_, what)) = found::SEEDS.iter().find(|(known, _)| known == seed) {
            println!("  which once found that {what}");
        }
    }
    match failed.first() {
        None => ExitCode::SUCCESS,
        Some((seed, _)) => {
            run_seed(*seed, MAX_LINES).lines.iter().for_each(|line| println!("{line}"));
            println!("to replay it: cargo test -p farpool-session --test simulation -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}
