//! Sets how much freed memory the allocator keeps: much as a rule, next to nothing while much is held.
//!
//! By itself glibc allocates from its heap what is no larger than the largest block freed so far (up to 32 MiB), and returns
//! memory from the end of the heap only. That is fast, but free space between blocks that stay is kept, so the process
//! takes far more than it holds. Blocks above the mmap threshold are mapped one by one and leave nothing behind. But each costs a page fault
//! for each of its pages: with a threshold of 128 KiB, items of 1 MiB pass the coordinator at half the speed.
//!
//! So the thresholds are low only while so much is held that it matters, and for some seconds afterwards. Setting one of them
//! turns glibc's own adjustment of both off for good (mallopt(3)), so both are set, each time. `malloc_trim` returns the free space
//! that was kept before. It walks all free blocks, so it may take only a small part of the time.

use std::time::Instant;

/// While little is held: what glibc comes to choose by itself when blocks of a few MiB are freed.
const ROOMY: Thresholds = Thresholds { map: 8 << 20, trim: 16 << 20 };
/// While much is held.
const LEAN: Thresholds = Thresholds { map: 64 << 10, trim: 128 << 10 };

/// How long it stays lean after much was held, in ns.
const LEAN_NS: u64 = 5_000_000_000;
/// The least time from one trim to the next, in ns; and so many times as long as the last one took.
const TRIM_NS: u64 = 100_000_000;
const TRIM_PART: u64 = 20;

struct Thresholds {
    /// Blocks of at least so many bytes are mapped one by one.
    map: i32,
    /// So many free bytes at the end of the heap are returned.
    trim: i32,
}

/// The allocator, as it was set last.
#[derive(Default)]
pub(super) struct Heap {
    /// Lean until then, in ns; none: roomy, or never set.
    lean_until: Option<u64>,
    next_trim: u64,
}

impl Heap {
    /// To be called often: whether much is held now.
    pub(super) fn tend(&mut self, much: bool, now: u64) {
        if much {
            if self.lean_until.replace(now + LEAN_NS).is_none() {
                set(&LEAN);
            }
            self.trim(now);
        } else if self.lean_until.is_some_and(|until| until <= now) {
            self.lean_until = None;
            set(&ROOMY);
            self.trim(now);
        }
    }

    fn trim(&mut self, now: u64) {
        if now >= self.next_trim {
            let began = Instant::now();
            trim();
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.next_trim = now.saturating_add(TRIM_NS.max(took.saturating_mul(TRIM_PART)));
        }
    }
}

#[cfg(target_env = "gnu")]
fn set(thresholds: &Thresholds) {
    use nix::libc::{M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, mallopt};
    // SAFETY: both are known options, of which any value is allowed. Blocks that are there stay as they are.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, thresholds.map);
        mallopt(M_TRIM_THRESHOLD, thresholds.trim);
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes the allocator's own locks, and gives back only pages that no block lies in.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Other allocators choose for themselves.
#[cfg(not(target_env = "gnu"))]
fn set(Thresholds { map: _, trim: _ }: &Thresholds) {}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
