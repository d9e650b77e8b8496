//! Polls for what other processes do, where there is no event to wait for.

use std::time::{Duration, Instant};

use crate::processes::{self, Process};

/// A condition that takes longer is considered never true. On an idle machine, much less is enough.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `there` finds no process; fails if some are left after `limit`.
#[track_caller]
pub fn until_gone(limit: Duration, there: impl Fn() -> Vec<Process>) {
    let left = left_after(limit, there);
    assert!(left.is_empty(), "after {limit:?} there are:\n{}", processes::list(&left));
}

/// Waits until `there` finds no process; returns those that are left after `limit`.
pub fn left_after(limit: Duration, there: impl Fn() -> Vec<Process>) -> Vec<Process> {
    let start = Instant::now();
    loop {
        let left = there();
        if left.is_empty() || start.elapsed() > limit {
            return left;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until the condition is true; fails if it never is.
#[track_caller]
pub fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "the condition is not true within {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}
