//! The checks after all repairs: clients end, nothing is held or running, all processes end, and at-most-once items ran
//! at most once.

mod detached;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use farpool_testkit::binaries;
use farpool_testkit::daemon::{Daemon, PATIENCE};
use farpool_testkit::processes;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::disk::JOURNAL_SIZE;

/// How long clients may take to finish.
const CLIENTS_TIMEOUT: Duration = Duration::from_secs(60);
/// How long everything else may take after that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// A journal without jobs is smaller than this: it has some segments that are not worth compacting.
const EMPTY_JOURNAL: u64 = JOURNAL_SIZE / 16;

/// Runs all checks. Returns a summary, or what is wrong.
pub(crate) fn run(cluster: &mut Cluster) -> Result<String, String> {
    let repaired = Instant::now();
    let mut counts = BTreeMap::<String, u64>::new();
    cluster.clients.iter_mut().for_each(Daemon::close_stdin);
    for mut client in std::mem::take(&mut cluster.clients) {
        let status = client.wait(CLIENTS_TIMEOUT)?;
        if !status.success() {
            return Err(format!("{} ended with {status}; its output:\n{}", client.name(), client.tail()));
        }
        let path = cluster.folder().join(client.name()).join("counts");
        let text = fs::read_to_string(path).map_err(|error| format!("{} has not counted: {error}", client.name()))?;
        let own: BTreeMap<String, u64> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        own.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    }
    let took = repaired.elapsed();
    cluster.wait_for_leaving_agents()?;
    let left = detached::check_and_discard_all(cluster)?;
    let dropped = wait_until_idle(cluster)?;
    cluster.check_torn_journal_warning()?;
    check_daemons_end(cluster)?;
    for number in 0.. {
        let folder = cluster.folder().join(format!("client-{number}"));
        if !folder.exists() {
            break;
        }
        check_at_most_once(&folder)?;
    }
    let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    Ok(format!(
        "no fault found: {}; of the detached jobs {left}; late messages dropped by the last coordinator: {dropped}; clients were done {took:.1?} after \
         the last repair",
        counts.join(", ")
    ))
}

/// Waits until nothing is held. Returns how many late messages were dropped.
fn wait_until_idle(cluster: &Cluster) -> Result<u64, String> {
    let start = Instant::now();
    loop {
        let status = status(cluster);
        let wrong = match &status {
            Ok(status) => leftovers(status, cluster.agents()),
            Err(error) => Some(error.clone()),
        };
        match wrong {
            None => return Ok(status.map_or(0, |status| status["late_messages"].as_u64().unwrap_or(0))),
            Some(wrong) if start.elapsed() > IDLE_TIMEOUT => {
                let left = processes::list(&cluster.processes());
                return Err(format!("{IDLE_TIMEOUT:?} after the last client's end {wrong}; there are:\n{left}"));
            }
            Some(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn status(cluster: &Cluster) -> Result<Value, String> {
    let mut command = Command::new(binaries::farpool());
    let output = command.args(["status", "--json", "--address", &cluster.address()]).output();
    let output = output.map_err(|error| format!("farpool status: {error}"))?;
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout).map_err(|error| format!("farpool status is no JSON: {error}")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Describes what is still held, if anything.
fn leftovers(status: &Value, agents: usize) -> Option<String> {
    let is_idle = |agent: &Value| {
        let is = |key: &str, value: Value| agent[key] == value;
        is("busy", 0.into()) && is("chunks", 0.into()) && is("away", false.into()) && is("unhealthy", "".into())
    };
    let present = status["agents"].as_array().map_or(&[][..], Vec::as_slice);
    let is_empty = |key: &str| status[key].as_array().is_some_and(Vec::is_empty);
    let idle = present.len() == agents && present.iter().all(is_idle) && is_empty("pools") && is_empty("jobs");
    let journal = &status["journal"];
    let empty = journal["jobs"] == 0
        && journal["failing"] == ""
        && journal["bytes"].as_u64().is_some_and(|all| all < EMPTY_JOURNAL);
    (!idle || !empty || status["held_bytes"] != 0).then(|| format!("the cluster is not empty: {status}"))
}

/// Checks that only the daemons run, that they end when they are asked to, and that then nothing is left.
fn check_daemons_end(cluster: &mut Cluster) -> Result<(), String> {
    let daemons: Vec<u32> = cluster.agents.iter().map(Daemon::pid).chain([cluster.coordinator.pid()]).collect();
    until_gone("after the clients' end", || {
        cluster.processes().into_iter().filter(|process| !daemons.contains(&process.pid)).collect()
    })?;
    let Cluster { agents, coordinator, .. } = cluster;
    for daemon in agents.iter_mut().chain([coordinator]) {
        daemon.signal(Signal::SIGTERM);
        let status = daemon.wait(PATIENCE)?;
        if !status.success() {
            return Err(format!("{} ended with {status}; its output:\n{}", daemon.name(), daemon.tail()));
        }
    }
    until_gone("after the daemons' end", || cluster.processes())
}

fn until_gone(when: &str, there: impl Fn() -> Vec<processes::Process>) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let left = there();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > IDLE_TIMEOUT {
            return Err(format!("{IDLE_TIMEOUT:?} {when} these processes are left:\n{}", processes::list(&left)));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Checks that no at-most-once item is in a log twice.
fn check_at_most_once(folder: &Path) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("once-") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = text.lines().find(|line| !seen.insert(*line)) {
            return Err(format!("item {twice} ran twice, but may run at most once: {}", entry.path().display()));
        }
    }
    Ok(())
}
