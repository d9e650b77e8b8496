//! Functions for workers that every suite needs.

use std::thread;
use std::time::Duration;

use farpool::Data;

/// Returns a result that differs from its item.
pub(crate) fn square(n: u64) -> u64 {
    n * n
}

/// Returns its argument.
pub(crate) fn identity<T: Data>(value: T) -> T {
    value
}

/// Sleeps for this many milliseconds, and returns their number.
pub(crate) fn nap(milliseconds: u64) -> u64 {
    thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}

/// Sleeps for this many milliseconds, and returns the worker's pid.
pub(crate) fn pid_after(milliseconds: u64) -> u32 {
    nap(milliseconds);
    std::process::id()
}
