//! The functions that run in the workers.

use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use num_bigint::BigUint;

pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn identity(number: u64) -> u64 {
    number
}

pub(crate) fn factorial(n: u32) -> BigUint {
    (1..=n).map(BigUint::from).product()
}

pub(crate) fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}

pub(crate) fn make_mib(_: u64) -> Vec<u8> {
    static MEBIBYTE: OnceLock<Vec<u8>> = OnceLock::new();
    MEBIBYTE.get_or_init(|| vec![7; MIB]).clone()
}

pub(crate) fn nap(seconds: f64) -> f64 {
    std::thread::sleep(Duration::from_secs_f64(seconds));
    seconds
}

/// The item that kills its worker.
pub(crate) const POISON: u32 = 50;

/// Logs that the item runs, and when (CLOCK_MONOTONIC, ns).
pub(crate) fn poison(item: u32, log: String) -> u32 {
    let line = format!("{item} {}\n", farpool_testkit::machine::monotonic_ns());
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(log);
    opened.and_then(|mut log| log.write_all(line.as_bytes())).expect("cannot write the log");
    if item == POISON {
        let _ = raise(Signal::SIGKILL);
    }
    nap(0.005);
    item
}

/// 400 draws of a Pareto distribution (alpha 1.5, mean 5 ms), in seconds: Python's `random.Random(20240607)`.
pub(crate) fn sleeps(ascending: bool) -> Vec<f64> {
    let lines = include_str!("sleeps.txt").lines();
    let mut sleeps: Vec<f64> = lines.map(|line| line.parse().expect("sleeps.txt holds numbers")).collect();
    if ascending {
        sleeps.sort_by(f64::total_cmp);
    }
    sleeps
}
