//! Functions for workers that every suite needs.

use std::thread;
use std::time::Duration;

use farpool::Data;

/// Something that a result tells apart from its item.
pub(crate) fn square(n: u64) -> u64 {
    n * n
}

/// What came in goes out.
pub(crate) fn identity<T: Data>(value: T) -> T {
    value
}

/// Takes so many milliseconds, and returns their number.
pub(crate) fn nap(milliseconds: u64) -> u64 {
    thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}

/// The worker, after so many milliseconds.
pub(crate) fn pid_after(milliseconds: u64) -> u32 {
    nap(milliseconds);
    std::process::id()
}
