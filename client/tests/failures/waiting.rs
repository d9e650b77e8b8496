//! Waiting for what other processes do, which is no event that could be awaited.

use std::time::{Duration, Instant};

use crate::processes::{self, Process};

/// Waits until `there` finds no process any more; fails if some are left after `limit`.
#[track_caller]
pub(crate) fn until_gone(limit: Duration, there: impl Fn() -> Vec<Process>) {
    let start = Instant::now();
    while !there().is_empty() {
        let left = there();
        assert!(start.elapsed() < limit || left.is_empty(), "after {limit:?} there are:\n{}", processes::list(&left));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until it is so; a case's own limit ends it if it never is.
pub(crate) fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(2));
    }
}
