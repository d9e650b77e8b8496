//! Waiting for what other processes do, where that is no event that could be awaited.

use std::time::{Duration, Instant};

use crate::processes::{self, Process};

/// What takes longer never happens: much less would do on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `there` finds no process any more; fails if some are left after `limit`.
#[track_caller]
pub fn until_gone(limit: Duration, there: impl Fn() -> Vec<Process>) {
    let left = left_after(limit, there);
    assert!(left.is_empty(), "after {limit:?} there are:\n{}", processes::list(&left));
}

/// Waits until `there` finds no process any more; returns those that are left after `limit`.
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

/// Waits until it is so; fails if it never is.
#[track_caller]
pub fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it does not become so within {PATIENCE:?}");
        std::thread::sleep(PAUSE);
    }
}
