//! A cluster of real processes that gets no rest, to test what the simulation cannot: signals, forks, sockets, links, disks.
//!
//! # What happens
//! A coordinator with a journal, four agents and two clients run, while `faults.rs` draws the next fault from a seed and
//! `stage/mishaps.rs` injects it. Workers, agents and the coordinator are killed and stopped, connections cut and left half open,
//! links taken down, and disks filled up. Every fault is repaired some time later.
//!
//! Where network namespaces are permitted (root, `ip`, `unshare`), half of the hosts are such namespaces, and the journal is on a
//! small disk of its own (`disk.rs`), which is filled up now and then. Between one coordinator's end and the next one's start
//! there may be garbage after the journal's end.
//!
//! The clients (`client.rs`, `jobs.rs`) run jobs of all kinds. They check every outcome themselves, and exit with an error at the first
//! wrong one.
//!
//! # Detached jobs
//! They belong to no process, so the test keeps its records of them in files (`ledger.rs`):
//!
//! - what a job consists of, before it is detached, and that its detach has returned;
//! - that somebody is about to cancel or discard it;
//! - which items started;
//! - what anybody has read.
//!
//! Clients attach to each other's jobs (`reading.rs`), and to those of visitors (`visitor.rs`), which are killed while they
//! detach. A job whose detach has not returned may exist or not, but nothing of it runs before it is complete.
//!
//! # What must hold
//! In the end (`verdict.rs`, `verdict/`) everything is repaired, and clients finish what they started. Then each detached job has ended
//! and gives every reader the same outcomes as before, even after another restart of the coordinator. Items that run at most
//! once did so. Once all jobs are discarded, nothing of them is left: at the coordinator and in its journal, at the agents, and
//! in the system's list of processes.
//!
//! # How to run it
//! `cargo test -p farpool --test chaos -- --seconds 3600 --seed 7`. Without a seed the time of day is one, and is printed. The same seed
//! gives the same faults at the same times; what the processes make of them is up to the kernel.

mod client;
mod diary;
mod disk;
mod faults;
mod hosts;
mod jobs;
mod ledger;
mod reading;
mod recipe;
mod stage;
mod verdict;
mod visitor;
mod work;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use farpool_testkit::folder;
use farpool_testkit::{binaries, doses};
use libtest_mimic::{Arguments, Failed, Trial};

use diary::Diary;
use faults::Schedule;
use stage::Stage;

/// How often what has become of daemons, clients and faults is looked after.
const BEAT: Duration = Duration::from_millis(20);

/// With what the test harness ends when something has failed.
const FAILED: i32 = 101;

#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    seconds: u64,
}

fn main() -> ExitCode {
    farpool::init();
    if env::var_os(client::ROLE).is_some() {
        return client::main();
    }
    let mut words: Vec<String> = env::args().collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos().into());
    let seed = number(&mut words, "--seed").unwrap_or(now);
    let plan = Plan { seed, seconds: number(&mut words, "--seconds").unwrap_or_else(doses::chaos_seconds) };
    let trial = Trial::test("nothing_is_lost_whatever_dies", move || play_apart(plan));
    libtest_mimic::run(&Arguments::from_iter(words), vec![trial]).exit_code()
}

/// Takes a flag and its number out of the arguments; the rest is for the test harness.
fn number(words: &mut Vec<String>, flag: &str) -> Option<u64> {
    let at = words.iter().position(|word| word == flag)?;
    let number = words.get(at + 1).and_then(|word| word.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{flag} takes a number"));
    words.drain(at..at + 2);
    Some(number)
}

/// In a network of its own, if that is permitted: this program once more.
fn play_apart(plan: Plan) -> Result<(), Failed> {
    let command = match hosts::is_apart() {
        true => None,
        false => hosts::apart()
            .map_err(|reason| println!("no namespaces here, so only cables fail, and no disk is full: {reason}"))
            .ok(),
    };
    let Some(mut command) = command else { return play(plan).map_err(Failed::from) };
    command.args(["--seed", &plan.seed.to_string(), "--seconds", &plan.seconds.to_string(), "--nocapture"]);
    let status = command.status()?;
    match status.code() {
        Some(0) => Ok(()),
        Some(FAILED) => Err("it failed, as was told above".into()),
        _ => Err(format!("it did not come to its end: {status}").into()),
    }
}

fn play(plan: Plan) -> Result<(), String> {
    binaries::make_daemons();
    let folder = folder::all().join(format!("chaos.{}", hosts::run_number()));
    fs::create_dir_all(&folder).expect("cargo's folder for tests can be written");
    println!("chaos for {} s from seed {}", plan.seconds, plan.seed);
    let diary = Diary::new(&folder);
    let mut stage = Stage::build(&folder, plan.seed, diary);
    let told = disturb(&mut stage, plan).and_then(|()| verdict::of(&mut stage));
    let story = match &told {
        Ok(story) => story.clone(),
        Err(wrong) => {
            stage.keep_journal();
            format!("{wrong}\nthe last faults:\n{}", stage.diary.last(12))
        }
    };
    println!("{}{story}", stage.diary.summary());
    drop(stage);
    let replay = format!(
        "the same faults again: cargo test -p farpool --test chaos -- --seconds {} --seed {}",
        plan.seconds, plan.seed
    );
    println!("{replay}");
    match told {
        Ok(_) => {
            let _ = fs::remove_dir_all(&folder);
            Ok(())
        }
        Err(_) => Err(format!("what all processes said is in {}; {replay}", folder.display())),
    }
}

/// Has faults happen until the time is over, and then mends everything.
fn disturb(stage: &mut Stage, plan: Plan) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    let mut schedule = Schedule::new(plan.seed, stage.agents(), stage.cables(), stage.links());
    let (mut pause, mut fault) = schedule.next();
    let mut due = Instant::now() + pause;
    while Instant::now() < end {
        if Instant::now() >= due {
            stage.suffer(fault);
            (pause, fault) = schedule.next();
            due += pause;
        }
        stage.mend_what_is_due(Instant::now());
        stage.check()?;
        std::thread::sleep(BEAT);
    }
    stage.mend_everything();
    stage.check()
}
