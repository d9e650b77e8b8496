//! Whole clusters in simulated time: the real coordinator, the real sessions of agents and clients, and everything that
//! can go wrong between them.
//!
//! A seed is a history: the same seed gives the same one, to the last byte. `--seed N` plays one and tells it, `--seeds N` plays
//! so many from `--from N` on, as do the variables SIMULATION_SEEDS and SIMULATION_FROM; otherwise [`doses`] says how many. Those that [`found`] names are
//! played in any case.

mod agent;
mod client;
mod coordinator;
mod detached;
mod disk;
mod found;
mod network;
mod plan;
mod process;
mod program;
mod trace;
mod way;
mod workers;
mod world;

use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use farpool_testkit::doses;

use trace::Story;
use world::World;

const THREADS: u64 = 2;
/// So many lines are shown of a history that went wrong.
const SHOWN: usize = 100;

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
        return tell(seed);
    }
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = number("--seeds").or(variable("SIMULATION_SEEDS")).unwrap_or_else(doses::histories);
    let from = number("--from").or(variable("SIMULATION_FROM")).unwrap_or(0);
    play_many(from, count)
}

/// Plays a seed.
fn play(seed: u64, keeps: usize) -> Story {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("there is memory");
    runtime.block_on(async {
        trace::begin(keeps);
        let run = tokio::spawn(World::new(seed).run());
        // What has panicked has said so.
        let _ = run.await;
    });
    drop(runtime);
    trace::end()
}

fn tell(seed: u64) -> ExitCode {
    let story = play(seed, usize::MAX);
    story.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} events, digest {:016x}", story.events, story.digest);
    match story.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn play_many(from: u64, count: u64) -> ExitCode {
    let asked = from..from.saturating_add(count);
    let known = found::SEEDS.iter().map(|(seed, _)| *seed).filter(|seed| !asked.contains(seed));
    let seeds: Vec<u64> = known.chain(asked.clone()).collect();
    let (next, failed, events) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let story = play(seed, 0);
                    events.fetch_add(story.events, Ordering::Relaxed);
                    // Now and then it is looked whether the same comes of the same.
                    let again = seed % 50 == 0 && play(seed, 0).digest != story.digest;
                    let violation =
                        if again { Some("another run was another history".to_owned()) } else { story.violation };
                    if let Some(violation) = violation {
                        failed.lock().expect("nobody panics with it").push((seed, violation));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("nobody panics with it");
    failed.sort();
    let (took, events) = (began.elapsed(), events.into_inner());
    let played = seeds.len();
    println!("{played} histories of {events} events in {took:.1?}, {} of them with a violation", failed.len());
    for (seed, violation) in &failed {
        println!("seed {seed}: {violation}");
        if let Some((_, what)) = found::SEEDS.iter().find(|(known, _)| known == seed) {
            println!("  which once found that {what}");
        }
    }
    match failed.first() {
        None => ExitCode::SUCCESS,
        Some((seed, _)) => {
            play(*seed, SHOWN).lines.iter().for_each(|line| println!("{line}"));
            println!("to see it again: cargo test -p farpool --test simulation -- --seed {seed}");
            ExitCode::FAILURE
        }
    }
}
