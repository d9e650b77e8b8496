//! The status page: state that an agent and a worker share without messages.
//!
//! The worker writes here which item it is about to begin. If it dies, the agent reads what was running.
//!
//! Both sides can write to all of it at any time, and a faulty worker does. So it consists of atomics, for which every
//! value is valid. The agent loads a number once per decision, and accepts only numbers of items that it gave the
//! worker. A faulty worker can make its own items run twice or not at all, and nothing else.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of the status page.
pub(super) const STATUS_BYTES: usize = 64 << 10;
/// Most items that one worker may run at once.
pub const MAX_THREADS: usize = 1024;
/// Bytes for the message of a panic that a worker did not survive.
pub const NOTE_BYTES: usize = 4096;
/// A worker is replaced before it gets this many items, so that positions never wrap.
pub const MAX_POSITION: u32 = 1 << 31;

/// The agent is awake and needs no doorbell.
const AWAKE: u64 = u64::MAX;
const NOTHING_REVOKED: u32 = u32::MAX;
const REVOKE_ATTEMPTS: u32 = 1 << 16;

/// The status page. Values that different sides write are on separate cache lines.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Status {
    pub(super) to_worker_written: CacheLine,
    pub(super) to_worker_read: CacheLine,
    pub(super) to_agent_written: CacheLine,
    pub(super) to_agent_read: CacheLine,
    /// The agent wants a doorbell once the worker has finished this many items.
    ring_at: CacheLine,
    /// The worker sleeps until it gets a doorbell.
    worker_sleeps: CacheLine,
    /// The agent has more for the worker than the ring could take.
    room_to_worker_wanted: CacheLine,
    /// The worker has more for the agent than the ring could take.
    room_to_agent_wanted: CacheLine,
    /// Upper half: first position that was revoked; lower half: positions below it have been claimed.
    claim: CacheLine,
    /// Threads of the worker whose items wait for other items.
    waiting: CacheLine,
    /// The worker's secret, part of its items' tokens; 0: none.
    item_secret: [AtomicU64; 2],
    /// The worker's number among those of its agent.
    worker_number: AtomicU32,
    note_length: AtomicU32,
    note: [AtomicU32; NOTE_BYTES / 4],
    running: [Running; MAX_THREADS],
}

const _: () = assert!(size_of::<Status>() <= STATUS_BYTES, "the status page fits where it is mapped");

/// A number alone on its cache line.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct CacheLine(pub(super) AtomicU64);

/// The item that one thread of a worker runs.
#[repr(C)]
#[derive(Debug)]
struct Running {
    /// Position of the item plus one; 0: none.
    position: AtomicU64,
    /// CLOCK_MONOTONIC in nanoseconds when a timed item began; 0: not timed.
    since: AtomicU64,
}

/// An item that a thread of a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningItem {
    /// Its position in the worker's stream of items.
    pub position: u32,
    /// CLOCK_MONOTONIC in nanoseconds when it began; `None` for items without a timeout.
    pub since: Option<u64>,
}

impl Status {
    pub(super) fn initialise(&self) {
        self.ring_at.0.store(AWAKE, Ordering::Relaxed);
        self.claim.0.store(pack(NOTHING_REVOKED, 0), Ordering::SeqCst);
    }

    // ---- the worker's number

    /// Gives the worker its number, before it starts.
    pub fn set_worker_number(&self, number: u32) {
        self.worker_number.store(number, Ordering::Relaxed);
    }

    /// Returns the worker's number.
    pub fn worker_number(&self) -> u32 {
        self.worker_number.load(Ordering::Relaxed)
    }

    // ---- doorbells, the agent's side

    /// Records that the agent is awake and needs no doorbell.
    pub fn agent_awake(&self) {
        self.ring_at.0.store(AWAKE, Ordering::Relaxed);
    }

    /// Records that the agent is about to sleep, and needs a doorbell once `finished` items are finished or anything
    /// else happens. It must check the ring once more after this call.
    pub fn agent_sleeps(&self, finished: u64) {
        self.ring_at.0.store(finished.min(AWAKE - 1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Returns whether the worker sleeps and needs a doorbell, after something was published; true only once.
    pub fn worker_needs_doorbell(&self) -> bool {
        fence(Ordering::SeqCst);
        self.worker_sleeps.0.load(Ordering::Relaxed) != 0 && self.worker_sleeps.0.swap(0, Ordering::SeqCst) != 0
    }

    /// Records that the agent waits for room in the ring to the worker.
    pub fn want_room_to_worker(&self) {
        self.room_to_worker_wanted.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Returns whether the worker waits for room in the ring to the agent, after some was released; true only once.
    pub fn room_to_agent_is_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.room_to_agent_wanted.0.load(Ordering::Relaxed) != 0
            && self.room_to_agent_wanted.0.swap(0, Ordering::SeqCst) != 0
    }

    // ---- doorbells, the worker's side

    /// Returns whether the agent needs a doorbell now that `finished` items are finished; true only once.
    pub fn agent_needs_doorbell(&self, finished: u64) -> bool {
        fence(Ordering::SeqCst);
        finished >= self.ring_at.0.load(Ordering::Relaxed) && self.ring_at.0.swap(AWAKE, Ordering::SeqCst) != AWAKE
    }

    /// Returns whether the agent sleeps and needs a doorbell for anything other than a finished item; true once.
    pub fn take_agent_sleep(&self) -> bool {
        fence(Ordering::SeqCst);
        self.ring_at.0.load(Ordering::Relaxed) != AWAKE && self.ring_at.0.swap(AWAKE, Ordering::SeqCst) != AWAKE
    }

    /// Records that the worker is about to sleep; it must check what it waits for once more after this call.
    pub fn worker_sleeps(&self) {
        self.worker_sleeps.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Records that the worker is awake.
    pub fn worker_awake(&self) {
        self.worker_sleeps.0.store(0, Ordering::Relaxed);
    }

    /// Returns whether the agent waits for room in the ring to the worker; true only once.
    pub fn room_to_worker_is_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.room_to_worker_wanted.0.load(Ordering::Relaxed) != 0
            && self.room_to_worker_wanted.0.swap(0, Ordering::SeqCst) != 0
    }

    /// Records that the worker waits for room in the ring to the agent; it must check once more after this call.
    pub fn want_room_to_agent(&self) {
        self.room_to_agent_wanted.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    // ---- claims

    /// Claims the item at `position` for the worker. Returns false if the agent has revoked it.
    pub fn claim(&self, position: u32) -> bool {
        let mut now = self.claim.0.load(Ordering::Relaxed);
        loop {
            let (revoked, _) = unpack(now);
            if position >= revoked {
                return false;
            }
            match self.claim.0.compare_exchange_weak(
                now,
                pack(revoked, position + 1),
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(changed) => now = changed,
            }
        }
    }

    /// Returns the position below which all have been claimed.
    pub fn claimed(&self) -> u32 {
        unpack(self.claim.0.load(Ordering::SeqCst)).1
    }

    /// Revokes every position from `from` on; the worker claims none of them until [`Status::resume`].
    ///
    /// # Errors
    /// If positions from `from` on were claimed already: nothing was revoked. The error is the position below which all
    /// are claimed.
    pub fn revoke(&self, from: u32) -> Result<(), u32> {
        let mut now = self.claim.0.load(Ordering::SeqCst);
        // Only a faulty worker could change it that often.
        for _ in 0..REVOKE_ATTEMPTS {
            let (_, claimed) = unpack(now);
            if claimed > from {
                return Err(claimed);
            }
            match self.claim.0.compare_exchange_weak(now, pack(from, claimed), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(changed) => now = changed,
            }
        }
        Err(u32::MAX)
    }

    /// Records that the worker has passed all revoked positions.
    pub fn resume(&self) {
        // Sets the upper half to NOTHING_REVOKED, even if the lower half changes.
        self.claim.0.fetch_or(pack(NOTHING_REVOKED, 0), Ordering::SeqCst);
    }

    // ---- what runs

    /// Records that a thread of the worker begins the item at `position`; `since` in CLOCK_MONOTONIC ns if it is timed.
    pub fn begin(&self, thread: usize, position: u32, since: u64) {
        let running = &self.running[thread];
        running.since.store(since, Ordering::Relaxed);
        running.position.store(u64::from(position) + 1, Ordering::Release);
    }

    /// Records that a thread of the worker runs no item.
    pub fn idle(&self, thread: usize) {
        self.running[thread].position.store(0, Ordering::Release);
    }

    /// Returns the items that the worker's first `threads` threads run.
    pub fn running(&self, threads: usize) -> impl Iterator<Item = RunningItem> + '_ {
        self.running.iter().take(threads).filter_map(|running| {
            let position = running.position.load(Ordering::Acquire);
            let since = running.since.load(Ordering::Relaxed);
            let position = u32::try_from(position.checked_sub(1)?).ok()?;
            Some(RunningItem { position, since: (since != 0).then_some(since) })
        })
    }

    // ---- waiting for other items

    /// Records that one more thread of the worker waits for items that run elsewhere. Ring the agent afterwards.
    pub fn begin_waiting(&self) {
        self.waiting.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Records that one thread less waits. Ring the agent afterwards.
    pub fn end_waiting(&self) {
        self.waiting.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns the number of threads of the worker that wait for items that run elsewhere.
    pub fn waiting(&self) -> u64 {
        self.waiting.0.load(Ordering::SeqCst)
    }

    // ---- tokens of items

    /// Sets the secret in the tokens of the worker's items.
    pub fn set_item_secret(&self, secret: u128) {
        for (word, at) in self.item_secret.iter().zip([0, 64]) {
            word.store((secret >> at) as u64, Ordering::Relaxed);
        }
    }

    /// Returns whether this is the secret in the tokens of the worker's items.
    pub fn has_item_secret(&self, secret: u128) -> bool {
        let words = [0, 1].map(|at| u128::from(self.item_secret[at].load(Ordering::Relaxed)));
        let own = words[0] | words[1] << 64;
        own != 0 && own == secret
    }

    // ---- last words

    /// Leaves the message of a panic, in case the worker does not survive it.
    pub fn leave_note(&self, text: &str) {
        let bytes = text.as_bytes();
        let length = bytes.len().min(NOTE_BYTES);
        for (word, four) in self.note.iter().zip(bytes[..length].chunks(4)) {
            let mut padded = [0; 4];
            padded[..four.len()].copy_from_slice(four);
            word.store(u32::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.note_length.store(u32::try_from(length).unwrap_or(0), Ordering::Release);
    }

    /// Returns the note that the worker left, if there is one.
    pub fn note(&self) -> Option<String> {
        let length = (self.note_length.load(Ordering::Acquire) as usize).min(NOTE_BYTES);
        if length == 0 {
            return None;
        }
        let bytes: Vec<u8> =
            self.note.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).take(length).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn pack(revoked: u32, claimed: u32) -> u64 {
    u64::from(revoked) << 32 | u64::from(claimed)
}

fn unpack(word: u64) -> (u32, u32) {
    let upper = u32::try_from(word >> 32).expect("the upper half fits 32 bits");
    let lower = u32::try_from(word & u64::from(u32::MAX)).expect("the lower half fits 32 bits");
    (upper, lower)
}
