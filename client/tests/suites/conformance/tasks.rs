//! Functions for workers to run.

use std::sync::atomic::{AtomicU64, Ordering};

use farpool::Data;

use crate::log;
pub(crate) use crate::plain_tasks::{identity, nap, pid_after, square};

/// Returns the worker's pid, and how many items it ran before.
pub(crate) fn whereabouts<T: Data>(_: T) -> (u32, u64) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    (std::process::id(), RUN.fetch_add(1, Ordering::Relaxed))
}

/// Logs the item.
pub(crate) fn noted(path: String, item: u64) -> u64 {
    log::note(&path, item);
    item
}

/// Panics on odd items.
pub(crate) fn even_only(n: u64) -> u64 {
    assert!(n.is_multiple_of(2), "{n} is odd");
    n
}

/// Returns this many bytes.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    vec![7; length]
}

/// Returns the number of bytes.
pub(crate) fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}
