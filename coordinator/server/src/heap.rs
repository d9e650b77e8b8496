//! Sets how much freed memory the allocator keeps: usually much, but little while the coordinator holds much.
//!
//! By default, glibc allocates blocks from its heap if they are no larger than the largest mapped block freed so far (up to 32 MiB),
//! and returns memory only from the end of the heap. That is fast, but free space between blocks in use is kept, so the process takes
//! far more than it uses. Blocks above the mmap threshold are mapped one by one, and are returned when they are freed. But each of
//! their pages costs a page fault: with a threshold of 128 KiB, items of 1 MiB pass the coordinator at half the speed.
//!
//! So the thresholds are low only while so much is held that it matters, and for some seconds afterwards. Once one threshold is set,
//! glibc no longer adjusts either (mallopt(3)), so both are set each time. `malloc_trim` returns free space that the heap has kept. It
//! walks all free blocks, so it is called seldom enough to take a small part of the time.

use std::time::Instant;

/// While little is held: about what glibc chooses by itself once blocks of a few MiB have been freed.
const ROOMY: Thresholds = Thresholds { map: 8 << 20, trim: 16 << 20 };
/// While much is held.
const LEAN: Thresholds = Thresholds { map: 64 << 10, trim: 128 << 10 };

/// How long the thresholds stay low after much was held, in ns.
const LEAN_NS: u64 = 5_000_000_000;
/// The least time from one trim to the next, in ns.
const TRIM_NS: u64 = 100_000_000;
/// The next trim also waits at least this many times as long as the last one took.
const TRIM_PART: u64 = 20;

struct Thresholds {
    /// Blocks of at least this many bytes are mapped individually.
    map: i32,
    /// The end of the heap is returned when it has at least this many free bytes.
    trim: i32,
}

/// The current setting of the allocator.
#[derive(Default)]
pub(super) struct Heap {
    /// Until when the thresholds stay low, in ns; `None`: they are high, or were never set.
    lean_until: Option<u64>,
    next_trim: u64,
}

impl Heap {
    /// Adjusts the thresholds, and trims the heap if that is due. Call this often. `much`: whether much is held now.
    pub(super) fn adjust(&mut self, much: bool, now: u64) {
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
    // SAFETY: both options take these values, and blocks in use are not affected.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, thresholds.map);
        mallopt(M_TRIM_THRESHOLD, thresholds.trim);
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it takes the allocator's own locks, and returns only pages in which no block is in use.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// The allocators of other C libraries are not changed.
#[cfg(not(target_env = "gnu"))]
fn set(Thresholds { map: _, trim: _ }: &Thresholds) {}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
