//! What must be so when everything was mended: clients come to their end, nobody holds or runs anything, all processes
//! go, and what was to run at most once did.

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

use crate::disk::JOURNAL_SIZE;
use crate::stage::Stage;

/// How long clients have for what they have begun.
const CLIENTS_END: Duration = Duration::from_secs(60);
/// And everybody for what comes of their end.
const CALM: Duration = Duration::from_secs(15);
/// A journal without jobs is smaller: some segments that are not worth being emptied.
const EMPTY: u64 = JOURNAL_SIZE / 16;

/// What has come of it, or what is wrong.
pub(crate) fn of(stage: &mut Stage) -> Result<String, String> {
    let mended = Instant::now();
    let mut counts = BTreeMap::<String, u64>::new();
    stage.clients.iter_mut().for_each(Daemon::tell_to_end);
    for mut client in std::mem::take(&mut stage.clients) {
        let status = client.wait(CLIENTS_END)?;
        if !status.success() {
            return Err(format!("{} ended with {status}; it said:\n{}", client.name(), client.tail()));
        }
        let path = stage.folder().join(client.name()).join("counts");
        let text = fs::read_to_string(path).map_err(|error| format!("{} has not counted: {error}", client.name()))?;
        let own: BTreeMap<String, u64> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        own.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    }
    let took = mended.elapsed();
    stage.see_off()?;
    let left = detached::come_to_their_end(stage)?;
    let dropped = all_is_calm(stage)?;
    stage.has_warned_of_torn_journals()?;
    ends(stage)?;
    for number in 0.. {
        let folder = stage.folder().join(format!("client-{number}"));
        if !folder.exists() {
            break;
        }
        at_most_once(&folder)?;
    }
    let told: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    Ok(format!(
        "all is well: {}; of the detached jobs {left}; late messages dropped by the last coordinator: {dropped}; clients were through {took:.1?} after \
         the last fault was mended",
        told.join(", ")
    ))
}

/// Waits until nobody holds anything. Returns how many late messages were dropped.
fn all_is_calm(stage: &Stage) -> Result<u64, String> {
    let start = Instant::now();
    loop {
        let status = status(stage);
        let wrong = match &status {
            Ok(status) => unrest(status, stage.agents()),
            Err(error) => Some(error.clone()),
        };
        match wrong {
            None => return Ok(status.map_or(0, |status| status["late_messages"].as_u64().unwrap_or(0))),
            Some(wrong) if start.elapsed() > CALM => {
                let left = processes::list(&stage.processes());
                return Err(format!("{CALM:?} after the last client's end {wrong}; there are:\n{left}"));
            }
            Some(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn status(stage: &Stage) -> Result<Value, String> {
    let mut command = Command::new(binaries::farpool());
    let output = command.args(["status", "--json", "--address", &stage.address()]).output();
    let output = output.map_err(|error| format!("farpool status: {error}"))?;
    match output.status.success() {
        true => serde_json::from_slice(&output.stdout).map_err(|error| format!("farpool status is no JSON: {error}")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What somebody still has.
fn unrest(status: &Value, agents: usize) -> Option<String> {
    let at_rest = |agent: &Value| {
        let is = |key: &str, value: Value| agent[key] == value;
        is("busy", 0.into()) && is("chunks", 0.into()) && is("away", false.into()) && is("unhealthy", "".into())
    };
    let there = status["agents"].as_array().map_or(&[][..], Vec::as_slice);
    let nothing = |key: &str| status[key].as_array().is_some_and(Vec::is_empty);
    let calm = there.len() == agents && there.iter().all(at_rest) && nothing("pools") && nothing("jobs");
    let journal = &status["journal"];
    let empty =
        journal["jobs"] == 0 && journal["failing"] == "" && journal["bytes"].as_u64().is_some_and(|all| all < EMPTY);
    (!calm || !empty || status["held_bytes"] != 0).then(|| format!("this is left: {status}"))
}

/// Nothing runs but the daemons; they go when they are told, and then nothing is left.
fn ends(stage: &mut Stage) -> Result<(), String> {
    let daemons: Vec<u32> = stage.agents.iter().map(Daemon::pid).chain([stage.coordinator.pid()]).collect();
    until_gone("after the clients' end", || {
        stage.processes().into_iter().filter(|process| !daemons.contains(&process.pid)).collect()
    })?;
    let Stage { agents, coordinator, .. } = stage;
    for daemon in agents.iter_mut().chain([coordinator]) {
        daemon.signal(Signal::SIGTERM);
        let status = daemon.wait(PATIENCE)?;
        if !status.success() {
            return Err(format!("{} ended with {status}; it said:\n{}", daemon.name(), daemon.tail()));
        }
    }
    until_gone("after the daemons' end", || stage.processes())
}

fn until_gone(when: &str, there: impl Fn() -> Vec<processes::Process>) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let left = there();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > CALM {
            return Err(format!("{CALM:?} {when} these processes are left:\n{}", processes::list(&left)));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// No line is twice in any log of items that may not run twice.
fn at_most_once(folder: &Path) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("once-") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).map_err(|error| error.to_string())?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = text.lines().find(|line| !seen.insert(*line)) {
            return Err(format!("item {twice} ran twice, and was to run once at most: {}", entry.path().display()));
        }
    }
    Ok(())
}
