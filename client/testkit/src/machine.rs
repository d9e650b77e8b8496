//! The machine: its description, whether it is idle, and the memory of processes.

use std::fs::read_to_string;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::processes::every;

/// Returns the number of cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns CLOCK_MONOTONIC, which all processes share.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("cannot read the clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Describes the machine in one line.
pub fn description() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} cores of {}, Linux {}", cores(), model.unwrap_or("an unknown model"), kernel.trim())
}

/// Returns a warning if other processes are busy.
pub fn noise() -> Option<String> {
    let (busy_before, all_before) = ticks()?;
    std::thread::sleep(Duration::from_millis(500));
    let (busy, all) = ticks()?;
    let share = 100 * (busy - busy_before) / (all - all_before).max(1);
    (share >= 10)
        .then(|| format!("NOT QUIET: other processes take {share} % of the machine, so these figures are rough"))
}

/// Returns the ticks in which cores were busy, and all ticks.
fn ticks() -> Option<(u64, u64)> {
    let stat = read_to_string("/proc/stat").ok()?;
    let numbers: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let all: u64 = numbers.iter().take(8).sum();
    let idle = numbers.get(3)? + numbers.get(4)?;
    Some((all - idle, all))
}

/// Returns the memory of a process and all its descendants, in MiB. Shared memory counts once.
pub fn memory_of_tree(root: u32) -> f64 {
    let parents: Vec<(u32, u32)> = every().map(|process| (process.pid, process.parent)).collect();
    let mut tree = vec![root];
    let mut at = 0;
    while let Some(&parent) = tree.get(at) {
        tree.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    tree.into_iter().map(pss_kib).sum::<f64>() / 1024.0
}

fn pss_kib(pid: u32) -> f64 {
    let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
