//! The status page: what an agent and a worker tell each other without a message.
//!
//! The worker writes here which item it is on, before it begins it; when it dies, the agent reads what was running.
//!
//! Both sides can write to all of it at any time, and a worker whose code went astray does. So there are only atomics here,
//! of which every value is one, and the agent loads a number once for each decision and believes it only within the bounds
//! of what it has given itself. A worker that lies can have its own items run twice or not at all, and nothing else.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes kept for the status page.
pub(super) const STATUS_BYTES: usize = 64 << 10;
/// Most items that one worker may run at once.
pub const MAX_THREADS: usize = 1024;
/// Bytes kept for the message of a panic that a worker did not survive.
pub const NOTE_BYTES: usize = 4096;
/// A worker is replaced before it was given this many items, so that positions never wrap.
pub const MAX_POSITION: u32 = 1 << 31;

/// No doorbell wanted: the agent is awake.
const AWAKE: u64 = u64::MAX;
const NOTHING_REVOKED: u32 = u32::MAX;
const REVOKE_TRIES: u32 = 1 << 16;

/// The status page. Groups that different sides write lie on cache lines of their own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Status {
    pub(super) to_worker_written: Line,
    pub(super) to_worker_read: Line,
    pub(super) to_agent_written: Line,
    pub(super) to_agent_read: Line,
    /// The agent wants a doorbell once the worker has finished this many items.
    ring_at: Line,
    /// The worker sleeps until it hears a doorbell.
    worker_sleeps: Line,
    /// The agent has more for the worker than the ring could take.
    space_wanted: Line,
    /// The worker has more for the agent than the ring could take.
    room_wanted: Line,
    /// Upper half: first position that was revoked; lower half: positions below it have been claimed.
    claim: Line,
    /// Threads of the worker whose items wait for other items.
    waiting: Line,
    /// The worker's secret, of which it makes its items' tokens; 0: it has none.
    item_secret: [AtomicU64; 2],
    note_length: AtomicU32,
    note: [AtomicU32; NOTE_BYTES / 4],
    running: [Running; MAX_THREADS],
}

const _: () = assert!(size_of::<Status>() <= STATUS_BYTES, "the status page fits where it is mapped");

/// A number alone on its cache line.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Line(pub(super) AtomicU64);

/// What one thread of a worker is on.
#[repr(C)]
#[derive(Debug)]
struct Running {
    /// Position of the item plus one; 0: none.
    position: AtomicU64,
    /// CLOCK_MONOTONIC in nanoseconds when a timed item began; 0: not timed.
    since: AtomicU64,
}

/// An item that a thread of a worker is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningItem {
    /// Where in the worker's stream of items it lies.
    pub position: u32,
    /// CLOCK_MONOTONIC in nanoseconds when it began; `None` for items without a timeout.
    pub since: Option<u64>,
}

impl Status {
    pub(super) fn initialise(&self) {
        self.ring_at.0.store(AWAKE, Ordering::Relaxed);
        self.claim.0.store(pack(NOTHING_REVOKED, 0), Ordering::SeqCst);
    }

    // ---- doorbells, the agent's side

    /// The agent is awake: no doorbells, please.
    pub fn agent_awake(&self) {
        self.ring_at.0.store(AWAKE, Ordering::Relaxed);
    }

    /// The agent is about to sleep and wants a doorbell once `finished` items are finished, or for any other
    /// news. It must look at the ring once more after this call and before it sleeps.
    pub fn agent_sleeps(&self, finished: u64) {
        self.ring_at.0.store(finished.min(AWAKE - 1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the worker sleeps and needs a doorbell, after something was published for it; answers yes once.
    pub fn worker_needs_doorbell(&self) -> bool {
        fence(Ordering::SeqCst);
        self.worker_sleeps.0.load(Ordering::Relaxed) != 0 && self.worker_sleeps.0.swap(0, Ordering::SeqCst) != 0
    }

    /// The agent waits for room in the ring to the worker.
    pub fn want_space(&self) {
        self.space_wanted.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the worker waits for room in the ring to the agent, after some was made; answers yes once.
    pub fn room_is_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.room_wanted.0.load(Ordering::Relaxed) != 0 && self.room_wanted.0.swap(0, Ordering::SeqCst) != 0
    }

    // ---- doorbells, the worker's side

    /// Whether the agent wants to hear now that `finished` items are finished; answers yes once.
    pub fn agent_needs_doorbell(&self, finished: u64) -> bool {
        fence(Ordering::SeqCst);
        finished >= self.ring_at.0.load(Ordering::Relaxed) && self.ring_at.0.swap(AWAKE, Ordering::SeqCst) != AWAKE
    }

    /// Whether the agent sleeps and must hear of news that are no finished item; answers yes once.
    pub fn agent_is_asleep(&self) -> bool {
        fence(Ordering::SeqCst);
        self.ring_at.0.load(Ordering::Relaxed) != AWAKE && self.ring_at.0.swap(AWAKE, Ordering::SeqCst) != AWAKE
    }

    /// The worker is about to sleep; it must look at what it waits for once more before it does.
    pub fn worker_sleeps(&self) {
        self.worker_sleeps.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is awake again.
    pub fn worker_awake(&self) {
        self.worker_sleeps.0.store(0, Ordering::Relaxed);
    }

    /// Whether the agent waits for room in the ring to the worker; answers yes once.
    pub fn space_is_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.space_wanted.0.load(Ordering::Relaxed) != 0 && self.space_wanted.0.swap(0, Ordering::SeqCst) != 0
    }

    /// The worker waits for room in the ring to the agent; it must look for it once more after this call.
    pub fn want_room(&self) {
        self.room_wanted.0.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    // ---- claims

    /// The worker is about to begin the item at `position`; false when the agent has taken it back.
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

    /// Positions below this one have been claimed.
    pub fn claimed(&self) -> u32 {
        unpack(self.claim.0.load(Ordering::SeqCst)).1
    }

    /// The agent takes back every position from `from` on, of which the worker claims none until [`Status::resume`]. The
    /// error says that some were claimed, which are those below it: then nothing was taken back.
    pub fn revoke(&self, from: u32) -> Result<(), u32> {
        let mut now = self.claim.0.load(Ordering::SeqCst);
        // Only a worker that does nothing else could change it so often.
        for _ in 0..REVOKE_TRIES {
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

    /// The worker has passed all that was revoked.
    pub fn resume(&self) {
        // Sets the upper half to NOTHING_REVOKED, whatever is claimed meanwhile.
        self.claim.0.fetch_or(pack(NOTHING_REVOKED, 0), Ordering::SeqCst);
    }

    // ---- what runs

    /// Thread `thread` of the worker begins the item at `position`; `since` in CLOCK_MONOTONIC ns if it is timed.
    pub fn begin(&self, thread: usize, position: u32, since: u64) {
        let running = &self.running[thread];
        running.since.store(since, Ordering::Relaxed);
        running.position.store(u64::from(position) + 1, Ordering::Release);
    }

    /// Thread `thread` of the worker is on no item any more.
    pub fn idle(&self, thread: usize) {
        self.running[thread].position.store(0, Ordering::Release);
    }

    /// What the worker's first `threads` threads are on.
    pub fn running(&self, threads: usize) -> impl Iterator<Item = RunningItem> + '_ {
        self.running.iter().take(threads).filter_map(|running| {
            let position = running.position.load(Ordering::Acquire);
            let since = running.since.load(Ordering::Relaxed);
            let position = u32::try_from(position.checked_sub(1)?).ok()?;
            Some(RunningItem { position, since: (since != 0).then_some(since) })
        })
    }

    // ---- waiting for other items

    /// One more thread of the worker waits for items that run elsewhere; the agent is to be rung.
    pub fn begin_waiting(&self) {
        self.waiting.0.fetch_add(1, Ordering::SeqCst);
    }

    /// One thread less waits; the agent is to be rung.
    pub fn end_waiting(&self) {
        self.waiting.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Threads of the worker that wait for items that run elsewhere.
    pub fn waiting(&self) -> u64 {
        self.waiting.0.load(Ordering::SeqCst)
    }

    // ---- tokens of items

    /// The worker's items have tokens that are made of this secret.
    pub fn set_item_secret(&self, secret: u128) {
        for (word, at) in self.item_secret.iter().zip([0, 64]) {
            word.store((secret >> at) as u64, Ordering::Relaxed);
        }
    }

    /// Whether this is the secret that the worker's items have tokens of.
    pub fn has_item_secret(&self, secret: u128) -> bool {
        let words = [0, 1].map(|at| u128::from(self.item_secret[at].load(Ordering::Relaxed)));
        let own = words[0] | words[1] << 64;
        own != 0 && own == secret
    }

    // ---- last words

    /// The worker leaves the message of a panic, in case it does not survive it.
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

    /// The note that the worker left, if there is one.
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
    let upper = u32::try_from(word >> 32).expect("32 bits are left");
    let lower = u32::try_from(word & u64::from(u32::MAX)).expect("32 bits are left");
    (upper, lower)
}
