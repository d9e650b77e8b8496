//! Functions for workers to run.

use std::sync::atomic::{AtomicU64, Ordering};

use farpool::Data;

use crate::log;
pub(crate) use crate::plain_tasks::{identity, nap, pid_after, square};

/// The worker that ran this item, and how many items it ran before.
pub(crate) fn whereabouts<T: Data>(_: T) -> (u32, u64) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    (std::process::id(), RUN.fetch_add(1, Ordering::Relaxed))
}

/// Notes the item in a log.
pub(crate) fn noted(path: String, item: u64) -> u64 {
    log::note(&path, item);
    item
}

/// Panics on odd items.
pub(crate) fn even_only(n: u64) -> u64 {
    assert!(n.is_multiple_of(2), "{n} is odd");
    n
}

/// So many bytes.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    vec![7; length]
}

/// How many bytes there are.
pub(crate) fn length(bytes: Vec<u8>) -> usize {
    bytes.len()
}
