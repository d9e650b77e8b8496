//! A cluster of real processes under constant faults, to test what the simulation cannot: signals, forks, sockets,
//! links, disks.
//!
//! # What happens
//! A coordinator with a journal, four agents and two clients run, while `faults.rs` draws the next fault from a seed
//! and `cluster/injection.rs` injects it. Workers, agents and the coordinator are killed and stopped, connections cut
//! and left half open, links taken down, and disks filled up. Every fault is repaired some time later.
//!
//! Where network namespaces are permitted (root, `ip`, `unshare`), half of the hosts are such namespaces, and the
//! journal is on a small disk of its own (`disk.rs`), which is filled up now and then. Between one coordinator's end
//! and the next one's start there may be garbage after the journal's end.
//!
//! The clients (`client.rs`, `jobs.rs`) run jobs of all kinds. They check every outcome themselves, and exit with an
//! error at the first wrong one.
//!
//! # Detached jobs
//! They belong to no process, so the test keeps its records of them in files (`job_records.rs`):
//!
//! - the items and options of a job, before it is detached, and that its detach has returned;
//! - that a process is about to cancel or discard it;
//! - which items started;
//! - which outcomes any process has read.
//!
//! Clients attach to each other's jobs (`reading.rs`), and to those of visitors (`visitor.rs`), which are killed while they
//! detach. A job whose detach has not returned may exist or not, but nothing of it runs before it is complete.
//!
//! # What must hold
//! In the end (`final_checks.rs`, `final_checks/`) everything is repaired, and clients finish what they started. Then
//! each detached job has ended and gives every reader the same outcomes as before, even after another restart of the
//! coordinator. Items that run at most once did so. Once all jobs are discarded, nothing of them is left: at the
//! coordinator and in its journal, at the agents, and in the system's list of processes.
//!
//! # How to run it
//! `cargo test -p farpool --test chaos -- --seconds 3600 --seed 7`. Without a seed the time of day is one, and is
//! printed. The same seed gives the same faults at the same times; what the processes make of them is up to the kernel.

mod client;
mod cluster;
mod disk;
mod fault_log;
mod faults;
mod final_checks;
mod hosts;
mod job_records;
mod job_spec;
mod jobs;
mod reading;
mod visitor;
mod work;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use farpool_testkit::folder;
use farpool_testkit::{binaries, doses};
use libtest_mimic::{Arguments, Failed, Trial};

use cluster::Cluster;
use fault_log::FaultLog;
use faults::Schedule;

/// How often daemons, clients and faults are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The exit code of the test harness after a failure.
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
    let trial = Trial::test("nothing_is_lost_whatever_dies", move || play_isolated(plan));
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

/// Runs this program again in a separate network, if that is permitted.
fn play_isolated(plan: Plan) -> Result<(), Failed> {
    let command = match hosts::is_isolated() {
        true => None,
        false => hosts::isolated_command()
            .map_err(|reason| println!("no namespaces here, so only cables fail, and no disk is full: {reason}"))
            .ok(),
    };
    let Some(mut command) = command else { return run(plan).map_err(Failed::from) };
    command.args(["--seed", &plan.seed.to_string(), "--seconds", &plan.seconds.to_string(), "--nocapture"]);
    let status = command.status()?;
    match status.code() {
        Some(0) => Ok(()),
        Some(FAILED) => Err("it failed, as reported above".into()),
        _ => Err(format!("it did not end properly: {status}").into()),
    }
}

fn run(plan: Plan) -> Result<(), String> {
    binaries::build_daemons();
    let folder = folder::all().join(format!("chaos.{}", hosts::run_number()));
    fs::create_dir_all(&folder).expect("cannot write cargo's folder for tests");
    println!("chaos for {} s from seed {}", plan.seconds, plan.seed);
    let fault_log = FaultLog::new(&folder);
    let mut cluster = Cluster::build(&folder, plan.seed, fault_log);
    let result = inject_faults(&mut cluster, plan).and_then(|()| final_checks::run(&mut cluster));
    let summary = match &result {
        Ok(summary) => summary.clone(),
        Err(wrong) => {
            cluster.keep_journal();
            format!("{wrong}\nthe last faults:\n{}", cluster.fault_log.last(12))
        }
    };
    println!("{}{summary}", cluster.fault_log.summary());
    drop(cluster);
    let replay = format!(
        "the same faults again: cargo test -p farpool --test chaos -- --seconds {} --seed {}",
        plan.seconds, plan.seed
    );
    println!("{replay}");
    match result {
        Ok(_) => {
            let _ = fs::remove_dir_all(&folder);
            Ok(())
        }
        Err(_) => Err(format!("the output of all processes is in {}; {replay}", folder.display())),
    }
}

/// Injects faults until the time is over, and then repairs everything.
fn inject_faults(cluster: &mut Cluster, plan: Plan) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(plan.seconds);
    let mut schedule = Schedule::new(plan.seed, cluster.agents(), cluster.cables(), cluster.links());
    let (mut pause, mut fault) = schedule.next();
    let mut due = Instant::now() + pause;
    while Instant::now() < end {
        if Instant::now() >= due {
            cluster.inject(fault);
            (pause, fault) = schedule.next();
            due += pause;
        }
        cluster.repair_due(Instant::now());
        cluster.check()?;
        std::thread::sleep(POLL_INTERVAL);
    }
    cluster.repair_everything();
    cluster.check()
}
